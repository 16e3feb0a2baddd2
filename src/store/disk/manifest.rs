//! Looks for damage in the sorted files of the database and the lists of them, before it is opened.
//!
//! fjall takes the list of a keyspace's files, its manifest, as it is, and deletes files that are not on it; and it notes
//! checksums of whole files there that it does not look at again. So they are compared here, and fjall is given nothing
//! that does not match.
//!
//! A keyspace's directory has a file `current` with the number of its manifest (8 bytes), the manifest's xxh3 (16 bytes)
//! and a zero. The manifest is the file `v` with the number behind it, and an archive (see the crate `sfa`), whose
//! section `tables` lists, by level and run, the number of each file (8 bytes), a zero, its xxh3 (16 bytes), and a
//! sequence number (8 bytes). The files are in the directory `tables`. All numbers are little-endian.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// Compares every file that a manifest in a directory of fjall's names, and the manifests themselves, with their
/// checksums. Returns the first that does not match, or is not there.
pub(super) fn damaged_file(directory: &Path) -> io::Result<Option<PathBuf>> {
    for keyspace in fs::read_dir(directory.join("keyspaces"))? {
        let keyspace = keyspace?.path();
        let current = match fs::read(keyspace.join("current")) {
            Ok(current) => current,
            // Creating the keyspace was cut short, and nothing has been written to it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let Some((number, checksum)) = parse_current(&current) else {
            return Ok(Some(keyspace.join("current")));
        };
        let manifest = keyspace.join(format!("v{number}"));
        if !matches(&manifest, checksum)? {
            // It may as well be `current` that is wrong about it.
            return Ok(Some(manifest));
        }
        for (number, checksum) in tables(&manifest)? {
            let table = keyspace.join("tables").join(number.to_string());
            if !matches(&table, checksum)? {
                return Ok(Some(table));
            }
        }
    }
    Ok(None)
}

fn parse_current(current: &[u8]) -> Option<(u64, u128)> {
    let (number, rest) = current.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    (rest == [0]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
}

/// The numbers and checksums of the files that a manifest lists.
fn tables(manifest: &Path) -> io::Result<Vec<(u64, u128)>> {
    let unknown = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "a manifest without its list of files",
        )
    };
    let archive = sfa::Reader::new(manifest).map_err(|_| unknown())?;
    let mut section = archive
        .toc()
        .section(b"tables")
        .ok_or_else(unknown)?
        .buf_reader(manifest)?;
    let mut tables = Vec::new();
    let [levels] = take(&mut section)?;
    for _ in 0..levels {
        let [runs] = take(&mut section)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(take(&mut section)?) {
                let number = u64::from_le_bytes(take(&mut section)?);
                let [_kind] = take(&mut section)?;
                let checksum = u128::from_le_bytes(take(&mut section)?);
                let _sequence_number: [u8; 8] = take(&mut section)?;
                tables.push((number, checksum));
            }
        }
    }
    Ok(tables)
}

fn take<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Whether a file is there and has that checksum.
fn matches(path: &Path, checksum: u128) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.digest128() == checksum),
            bytes => hash.update(&buffer[..bytes]),
        }
    }
}
