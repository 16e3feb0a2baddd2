//! Certificates and keys for TLS to etcd. Only with the feature `tls`.

use std::fs;
use std::path::Path;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::TlsFiles;

/// What the files come to. Without one for `ca`, those are trusted whom browsers trust.
pub(super) fn config(files: &TlsFiles) -> Result<TlsConfig, String> {
    let roots = match &files.ca {
        Some(ca) => RootCerts::from(certificates(ca)?),
        None => RootCerts::WebPki,
    };
    let client = match &files.client {
        Some((chain, key)) => Some(client(chain, key)?),
        None => None,
    };
    let config = TlsConfig::builder().root_certs(roots).client_cert(client);
    Ok(config.build())
}

fn client(chain: &Path, key: &Path) -> Result<ClientCert, String> {
    let certificates = certificates(chain)?;
    let pem = read(key)?;
    let private = PrivateKey::from_pem(&pem).map_err(|error| of(key, error))?;
    // ureq would panic over a key that is not the certificate's.
    let ders = certificates.iter().map(|it| it.der().to_vec());
    let ders = ders.map(CertificateDer::from).collect();
    let der = PrivateKeyDer::try_from(private.der().to_vec()).map_err(|error| of(key, error))?;
    CertifiedKey::from_der(ders, der, &default_provider()).map_err(|error| of(key, error))?;
    Ok(ClientCert::new_with_certs(&certificates, private))
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let mut certificates = Vec::new();
    for item in parse_pem(&read(file)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| of(file, error))? {
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err(of(file, "there is no certificate in PEM in it")),
        false => Ok(certificates),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| of(file, error))
}

fn of(file: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", file.display())
}
