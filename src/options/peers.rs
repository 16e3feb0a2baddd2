//! `--peers`, as LittleClusters passes it.

use std::path::PathBuf;

/// Where a member of a cluster keeps its data. LittleClusters gives all members the same `--working-dir` and the same list, such as
/// `:8001,:8002,:8003`; each member knows itself by its port.
pub(super) fn working_dir_of_peer(
    peers: &str,
    port: u16,
    working_dir: Option<PathBuf>,
) -> Result<Option<PathBuf>, String> {
    let is_peer = |peer: &str| {
        let port = peer.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        matches!(port, Some(Ok(1..)))
    };
    if !peers.split(',').map(str::trim).all(is_peer) {
        return Err(format!(
            "--peers {peers:?}: expected members such as :8001,:8002,:8003"
        ));
    }
    if port == 0 {
        return Err(
            "--port 0 beside --peers: a member of a cluster needs a port of its own".into(),
        );
    }
    Ok(working_dir.map(|directory| directory.join(format!("node-{port}"))))
}
