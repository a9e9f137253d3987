//! What a node shows its peers, and whose word it takes about them.

use std::{fmt, path::Path};

use quorate_core::NodeId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{PkiError, files};
use crate::names::{self, ClusterId};

/// A node's certificate chain, its private key, and the authorities that sign for its cluster.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    cluster: ClusterId,
    node: NodeId,
}

impl Identity {
    /// From three PEM files: the chain (the node's own certificate first), its private key (PKCS#8, SEC1 or PKCS#1),
    /// and the authorities.
    ///
    /// # Errors
    /// If a file can't be read, lacks what it should hold, or the certificate is for no node.
    pub fn load(chain: &Path, key: &Path, authorities: &Path) -> Result<Self, PkiError> {
        let (c, k, a) = (files::read(chain)?, files::read(key)?, files::read(authorities)?);
        let place = |path: &Path| path.display().to_string();
        Self::parse((&place(chain), &c), (&place(key), &k), (&place(authorities), &a))
    }

    /// From PEM texts, as [`Identity::load`].
    ///
    /// # Errors
    /// If a text lacks what it should hold, or the certificate is for no node.
    pub fn from_pem(chain: &str, key: &str, authorities: &str) -> Result<Self, PkiError> {
        Self::parse(("the chain", chain), ("the key", key), ("the authorities", authorities))
    }

    /// Which cluster the certificate is for.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Which node the certificate is for.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    fn parse(chain: (&str, &str), key: (&str, &str), authorities: (&str, &str)) -> Result<Self, PkiError> {
        let place = chain.0;
        let chain = files::certificates(place, chain.1)?;
        let key = files::private_key(key.0, key.1)?;
        let roots = files::certificates(authorities.0, authorities.1)?;
        let name =
            chain.first().map_or(Err(names::NameError::NotOneNode { found: Vec::new() }), names::node_of);
        let (cluster, node) = name.map_err(|error| PkiError::Name { place: place.into(), error })?;
        Ok(Self { chain, key, roots, cluster, node })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots: self.roots.clone(),
            cluster: self.cluster,
            node: self.node,
        }
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
