//! An authority for development: one key in one directory.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use quorate_core::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::{Identity, PkiError, files};
use crate::names::{ClusterId, node_name};

/// Signs certificates for the nodes of a cluster. Whoever holds its key can pretend to be any of them: in production,
/// let an authority that you guard issue them instead.
pub struct Ca {
    cluster: ClusterId,
    certificate: String,
    key: KeyPair,
}

/// How long what [`Ca`] issues is valid. It is for development, where a cluster that stops working on its birthday
/// helps nobody.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate is valid a little before it was made: clocks differ.
const SKEW: Duration = Duration::from_secs(24 * 3600);

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

impl Ca {
    /// A new authority for `cluster`, with a new key (ECDSA P-256).
    ///
    /// # Errors
    /// If the machine gives no randomness.
    pub fn generate(cluster: ClusterId) -> Result<Self, PkiError> {
        let failed = |err: rcgen::Error| PkiError::crypto("can't make a certificate authority", &err);
        let key = KeyPair::generate().map_err(failed)?;
        // The name is the key's, too: two authorities of one name would be taken for one whose signature is bad.
        let print = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
        let print: String = print.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("quorate development CA {print} of cluster {cluster}");
        let mut params = params(&name, &from_now());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { cluster, certificate, key })
    }

    /// A certificate for `node`, with a new key.
    ///
    /// # Errors
    /// If the machine gives no randomness.
    pub fn issue(&self, node: NodeId) -> Result<Issued, PkiError> {
        self.issue_for(self.cluster, node, &from_now())
    }

    /// A certificate for a node of any cluster, for any time: one authority may serve several clusters.
    ///
    /// # Errors
    /// If the machine gives no randomness.
    pub fn issue_for(
        &self,
        cluster: ClusterId,
        node: NodeId,
        valid: &Range<SystemTime>,
    ) -> Result<Issued, PkiError> {
        let failed =
            |err: rcgen::Error| PkiError::crypto(format!("can't issue a certificate for node {node}"), &err);
        let name = node_name(cluster, node);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(&name, valid);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().map_err(failed)?)];
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, &self.key).map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem(), authorities: self.certificate.clone() })
    }

    /// Writes `ca.pem` and `ca.key` (mode 0600) into `dir`, which is made if it isn't there.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        files::make_dir(dir)?;
        files::write_private(&dir.join(KEY), &self.key.serialize_pem())?;
        files::write_public(&dir.join(CERTIFICATE), &self.certificate)
    }

    /// Reads back what [`Ca::save`] wrote.
    ///
    /// # Errors
    /// If a file can't be read or holds something else.
    pub fn load(dir: &Path, cluster: ClusterId) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE), dir.join(KEY));
        let certificate = files::read(&certificate_path)?;
        let place = certificate_path.display().to_string();
        files::certificates(&place, &certificate)?;
        let pem = files::read(&key_path)?;
        let place = key_path.display().to_string();
        files::private_key(&place, &pem)?;
        let key = KeyPair::from_pem(&pem).map_err(|err| PkiError::crypto(place, &err))?;
        Ok(Self { cluster, certificate, key })
    }

    /// Is there one in `dir`? Then [`Ca::load`] it; don't make another.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        dir.join(KEY).exists() || dir.join(CERTIFICATE).exists()
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }
}

/// Without the key.
impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A certificate and its key, as PEM: [`Issued::save`] them, or use them as an [`Issued::identity`].
#[derive(Clone)]
pub struct Issued {
    certificate: String,
    key: String,
    authorities: String,
}

impl Issued {
    /// What a node needs, without files.
    ///
    /// # Errors
    /// Never for what [`Ca`] issued.
    pub fn identity(&self) -> Result<Identity, PkiError> {
        Identity::from_pem(&self.certificate, &self.key, &self.authorities)
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its private key, PEM.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Writes `node.pem`, `node.key` (mode 0600) and `ca.pem` into `dir`, which is made if it isn't there.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn save(&self, dir: &Path) -> Result<Saved, PkiError> {
        files::make_dir(dir)?;
        let saved = Saved {
            certificate: dir.join("node.pem"),
            key: dir.join("node.key"),
            authorities: dir.join(CERTIFICATE),
        };
        files::write_private(&saved.key, &self.key)?;
        files::write_public(&saved.certificate, &self.certificate)?;
        files::write_public(&saved.authorities, &self.authorities)?;
        Ok(saved)
    }
}

/// Without the key.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Where [`Issued::save`] wrote; [`Identity::load`] takes the three.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority's certificate.
    pub authorities: PathBuf,
}

impl Saved {
    /// Reads the three files.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn load(&self) -> Result<Identity, PkiError> {
        Identity::load(&self.certificate, &self.key, &self.authorities)
    }
}

fn from_now() -> Range<SystemTime> {
    let now = SystemTime::now();
    now - SKEW..now + VALIDITY
}

fn params(name: &str, valid: &Range<SystemTime>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.not_before = valid.start.into();
    params.not_after = valid.end.into();
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameError;

    const CLUSTER: ClusterId = ClusterId(0xabc);

    #[test]
    fn what_is_saved_is_loaded_and_keys_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::generate(CLUSTER).unwrap();
        assert!(!Ca::is_in(dir.path()));
        ca.save(dir.path()).unwrap();
        assert!(Ca::is_in(dir.path()));
        let again = Ca::load(dir.path(), CLUSTER).unwrap();
        assert_eq!(again.certificate(), ca.certificate());

        let saved = again.issue(NodeId(7)).unwrap().save(&dir.path().join("node-7")).unwrap();
        let identity = saved.load().unwrap();
        assert_eq!((identity.cluster(), identity.node()), (CLUSTER, NodeId(7)));
        #[cfg(unix)]
        for path in [&saved.key, &dir.path().join(KEY)] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn saying_what_is_wrong_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Ca::load(dir.path(), CLUSTER).unwrap_err().to_string();
        assert!(missing.contains("ca.pem") && missing.starts_with("can't read"), "{missing}");

        let ca = Ca::generate(CLUSTER).unwrap();
        let saved = ca.issue(NodeId(1)).unwrap().save(dir.path()).unwrap();
        std::fs::write(&saved.key, "not a key").unwrap();
        let no_key = saved.load().unwrap_err().to_string();
        assert!(no_key.contains("node.key") && no_key.contains("private key"), "{no_key}");

        std::fs::write(&saved.certificate, "").unwrap();
        let no_certificate = saved.load().unwrap_err().to_string();
        assert!(
            no_certificate.contains("node.pem") && no_certificate.contains("certificate"),
            "{no_certificate}"
        );
    }

    #[test]
    fn a_certificate_for_no_node_is_told() {
        let ca = Ca::generate(CLUSTER).unwrap();
        let issued = ca.issue(NodeId(1)).unwrap();
        let result = Identity::from_pem(ca.certificate(), &issued.key, &issued.authorities);
        assert!(
            matches!(result, Err(PkiError::Name { error: NameError::NotOneNode { .. }, .. })),
            "{result:?}"
        );
    }
}
