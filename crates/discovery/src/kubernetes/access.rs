//! Where the API server of a cluster is, whom to believe there, and what it is shown.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::resource::service_registry::{KubernetesConfig, WebScheme};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::{Outside, Trouble, tls};

/// Where a pod finds the token of its service account, and the authority of its cluster beside it.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How a cluster is reached.
pub(super) struct Access {
    pub(super) server: String,
    pub(super) tls: ClientConfig,
    token: Token,
}

enum Token {
    None,
    Text(String),
    File(PathBuf),
}

impl Access {
    /// As the registry says, or the kubeconfig in it.
    pub(super) fn of(config: &KubernetesConfig, outside: &Outside) -> Result<Self, Trouble> {
        let client = config.client.clone().unwrap_or_default();
        if let Some(text) = &client.kubeconfig {
            return kubeconfig(text, outside)
                .map_err(|trouble| Trouble::new(format!("kubeconfig: {trouble}")));
        }
        let service = config.service.as_ref().ok_or_else(|| Trouble::new("service is missing"))?;
        let scheme = match service.schema {
            WebScheme::Http => "http",
            WebScheme::Https => "https",
        };
        let bare = service.host.trim_start_matches('[').trim_end_matches(']');
        let host = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
        let beside = client.token_file.as_deref().and_then(authority_beside);
        let tls = match (service.ssl_verify, service.ca.as_ref().or(beside.as_ref())) {
            (Some(false), _) => (outside.tls)(false),
            (_, Some(ca)) => tls::authorities(ca.as_bytes()).and_then(|ca| tls::believing(ca, None)),
            (_, None) => (outside.tls)(true),
        };
        let token = match (client.token, client.token_file) {
            (Some(token), _) => Token::Text(token),
            (None, Some(path)) => Token::File(path.into()),
            (None, None) => Token::None,
        };
        let server = format!("{scheme}://{host}:{}", service.port);
        Ok(Self { server, tls: tls.map_err(Trouble::new)?, token })
    }

    /// What the server is shown now: tokens in files are renewed there.
    pub(super) async fn token(&self) -> Result<Option<String>, Trouble> {
        match &self.token {
            Token::None => Ok(None),
            Token::Text(token) => Ok(Some(token.clone())),
            Token::File(path) => {
                let reading = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(reading)).await;
                let text = read.map_err(std::io::Error::other).flatten();
                let text =
                    text.map_err(|error| Trouble::new(format!("token file {}: {error}", path.display())))?;
                Ok(Some(text.trim().to_owned()))
            }
        }
    }
}

fn authority_beside(token_file: &str) -> Option<String> {
    let directory =
        Path::new(token_file).parent().filter(|directory| *directory == Path::new(SERVICE_ACCOUNT))?;
    std::fs::read_to_string(directory.join("ca.crt")).ok()
}

fn kubeconfig(text: &str, outside: &Outside) -> Result<Access, Trouble> {
    let file: Kubeconfig = serde_saphyr::from_str(text).map_err(Trouble::new)?;
    let lacks = |what: &str, name: &str| Trouble::new(format!("there is no {what} `{name}`"));
    let name = &file.current_context;
    let context = file.contexts.into_iter().find(|context| context.name == *name);
    let context = context.ok_or_else(|| lacks("context", name))?.context;
    let cluster = file.clusters.into_iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.ok_or_else(|| lacks("cluster", &context.cluster))?.cluster;
    let user = file.users.into_iter().find(|user| user.name == context.user);
    let user = user.ok_or_else(|| lacks("user", &context.user))?.user;
    if cluster.certificate_authority.is_some()
        || user.client_certificate.is_some()
        || user.client_key.is_some()
        || user.token_file.is_some()
    {
        let message = "it refers to files, which gateways do not have; `kubectl config view --flatten --raw` writes it in one";
        return Err(Trouble::new(message));
    }
    if user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some() {
        return Err(Trouble::new("its user proves itself otherwise than by a token or a certificate"));
    }
    let pair = match (&user.client_certificate_data, &user.client_key_data) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (decoded(certificate)?, decoded(key)?);
            let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| Trouble::new(format!("client certificate: {error}")))?;
            let key = PrivateKeyDer::from_pem_slice(&key);
            Some((chain, key.map_err(|error| Trouble::new(format!("client key: {error}")))?))
        }
        _ => None,
    };
    let tls = match &cluster.certificate_authority_data {
        _ if cluster.insecure_skip_tls_verify && pair.is_some() => {
            return Err(Trouble::new("a client certificate is shown to nobody who is not verified"));
        }
        _ if cluster.insecure_skip_tls_verify => (outside.tls)(false),
        Some(data) => {
            let authorities = tls::authorities(&decoded(data)?);
            authorities.and_then(|authorities| tls::believing(authorities, pair))
        }
        None if pair.is_some() => {
            Err("a client certificate needs certificate-authority-data beside it".to_owned())
        }
        None => (outside.tls)(true),
    };
    let token = user.token.map_or(Token::None, Token::Text);
    Ok(Access { server: cluster.server, tls: tls.map_err(Trouble::new)?, token })
}

fn decoded(data: &str) -> Result<Vec<u8>, Trouble> {
    STANDARD.decode(data.trim()).map_err(|error| Trouble::new(format!("data that are not base64: {error}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(alias = "tokenFile")]
    token_file: Option<String>,
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    username: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}
