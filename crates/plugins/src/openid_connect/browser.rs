//! Browsers: sent to the identity provider, back with a code, remembered in a session, and out again.

use std::time::Duration;

use base64::Engine as _;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::OpenIdConnect;
use super::bearer::{Refused, holds};
use super::config::Par;
use super::provider::{Trouble, document};
use super::seal::random;
use super::session::{Login, Session};
use crate::exchange::Answer;
use crate::jose::{Token, URL_SAFE};

/// What the identity provider sent a browser back with.
pub(super) struct Returned {
    pub(super) code: Option<String>,
    pub(super) state: Option<String>,
    pub(super) error: Option<String>,
}

/// What was granted.
struct Granted {
    access_token: String,
    expires: Option<u64>,
    refresh_token: Option<String>,
    id_token: Option<String>,
    /// The scopes, if that was said beside the token.
    scope: Option<String>,
}

fn unexpected(reason: &str) -> Trouble {
    Trouble::Provider(reason.to_owned())
}

impl OpenIdConnect {
    /// Where a browser is sent to log in, and what it has to come back with.
    pub(super) async fn leave(
        &self,
        redirect_uri: &str,
        target: String,
        now: Duration,
    ) -> Result<(String, Login), Trouble> {
        let config = &self.provider.config;
        let discovery = self.provider.discovery(now).await?;
        let endpoint = discovery.authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| unexpected("discovery: there is no authorization_endpoint"))?;
        let secret = || {
            let bytes: [u8; 32] = random().ok_or_else(|| unexpected("the system has no random numbers"))?;
            Ok(URL_SAFE.encode(bytes))
        };
        let (state, nonce) = (secret()?, secret()?);
        let verifier = if config.use_pkce { Some(secret()?) } else { None };
        let mut asked = vec![
            ("response_type", "code".to_owned()),
            ("redirect_uri", redirect_uri.to_owned()),
            ("scope", config.scope.clone()),
            ("state", state.clone()),
            ("nonce", nonce.clone()),
        ];
        if let Some(verifier) = &verifier {
            asked.push(("code_challenge", URL_SAFE.encode(digest(&SHA256, verifier.as_bytes()))));
            asked.push(("code_challenge_method", "S256".to_owned()));
        }
        if let Some(proofs) = &self.provider.proofs {
            // The code is bound to the key as well (RFC 9449, 10).
            self.provider.takes_proofs(&discovery)?;
            asked.push(("dpop_jkt", proofs.thumbprint().to_owned()));
        }
        for (name, value) in config.authorization_params.iter().flatten() {
            asked.push((name, value.as_str().map_or(value.to_string(), str::to_owned)));
        }
        if let Some(par) = config.par.as_ref().filter(|par| par.enabled) {
            let pushed = self.push(par, asked, now).await?;
            asked = vec![("request_uri", pushed)];
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("client_id", &config.client_id).extend_pairs(asked);
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let location = format!("{endpoint}{separator}{}", query.finish());
        Ok((location, Login { since: now.as_secs(), state, nonce, verifier, target }))
    }

    /// Says to the identity provider itself what a browser is sent for, and hands back what that is called from then on
    /// (RFC 9126).
    async fn push(
        &self,
        par: &Par,
        mut asked: Vec<(&str, String)>,
        now: Duration,
    ) -> Result<String, Trouble> {
        let config = &self.provider.config;
        let discovery = self.provider.discovery(now).await?;
        let uri = par.endpoint.as_deref().or(discovery.pushed_authorization_request_endpoint.as_deref());
        let missing = || unexpected("discovery: there is no pushed_authorization_request_endpoint");
        let method = par.endpoint_auth_method.as_ref().unwrap_or(&config.token_endpoint_auth_method);
        if method == "client_secret_basic" {
            // Whoever proves itself otherwise says there who it is.
            asked.push(("client_id", config.client_id.clone()));
        }
        let proof = (method.as_str(), asked);
        let answer = self.provider.submit("par", uri.ok_or_else(missing)?, proof, (Vec::new(), now)).await?;
        match document("par", &answer)?.remove("request_uri") {
            Some(Value::String(request_uri)) => Ok(request_uri),
            _ => Err(unexpected("par: there is no request_uri")),
        }
    }

    /// The session of a browser that came back from `login`.
    pub(super) async fn arrive(
        &self,
        code: String,
        login: &Login,
        redirect_uri: &str,
        now: Duration,
    ) -> Result<Session, Refused> {
        let mut fields = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code),
            ("redirect_uri", redirect_uri.to_owned()),
        ];
        fields.extend(login.verifier.iter().map(|verifier| ("code_verifier", verifier.clone())));
        let granted = self.grant(fields, now).await?;
        let id_token = granted.id_token.ok_or_else(|| unexpected("token: there is no ID token"))?;
        let claims = self.identity(&id_token, Some(&login.nonce), now).await?;
        let user = self.known_user(&granted.access_token, &claims, now).await?;
        let session = Session {
            since: now.as_secs(),
            touched: now.as_secs(),
            granted: now.as_secs(),
            access_token: granted.access_token,
            expires: granted.expires,
            refresh_token: granted.refresh_token,
            id_token,
            claims,
            user,
            admits: self.provider.config.force_reauthorize.then(|| login.target.clone()),
        };
        self.check_login(&session, granted.scope)?;
        Ok(session)
    }

    /// What the configuration demands of a login: the schema is for all that came of it.
    fn check_login(&self, session: &Session, scope: Option<String>) -> Result<(), Refused> {
        self.check_schema(|| {
            let mut known = json!({ "access_token": session.access_token, "id_token": session.claims });
            if let Some(user) = &session.user {
                known["user"] = Value::Object(user.clone());
            }
            known
        })?;
        self.check_audience(&session.claims)?;
        // The access token comes from who made it: nobody else could have said what it is good for.
        let own = Token::parse(session.access_token.as_bytes()).ok();
        let own = own.and_then(|mut token| token.claims.remove("scope")).or(scope.map(Value::String));
        self.check_scopes(own.as_ref().or_else(|| session.claims.get("scope")))
    }

    /// `session` with new tokens.
    pub(super) async fn renew(&self, session: Session, now: Duration) -> Result<Session, Refused> {
        let refresh = session.refresh_token.clone();
        let refresh = refresh.ok_or_else(|| unexpected("there is no refresh token"))?;
        let fields = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", refresh),
            ("scope", self.provider.config.scope.clone()),
        ];
        let granted = self.grant(fields, now).await?;
        let mut renewed = Session {
            granted: now.as_secs(),
            access_token: granted.access_token,
            expires: granted.expires,
            refresh_token: granted.refresh_token.or(session.refresh_token.clone()),
            ..session
        };
        if let Some(id_token) = granted.id_token {
            let claims = self.identity(&id_token, None, now).await?;
            // Another user's token must not slip into this session.
            if claims.get("sub") != renewed.claims.get("sub") {
                return Err(unexpected("token: the ID token is somebody else's").into());
            }
            (renewed.id_token, renewed.claims) = (id_token, claims);
        }
        Ok(renewed)
    }

    async fn grant(&self, fields: Vec<(&str, String)>, now: Duration) -> Result<Granted, Trouble> {
        let config = &self.provider.config;
        let discovery = self.provider.discovery(now).await?;
        let uri = discovery.token_endpoint.as_deref();
        let uri = uri.ok_or_else(|| unexpected("discovery: there is no token_endpoint"))?;
        let mut said = self.provider.grant(uri, fields, now).await?;
        let mut text = |name: &str| match said.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let is_bound = text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("DPoP"));
        if self.provider.proofs.is_some() && !is_bound {
            return Err(unexpected("token: the access token is not bound to the key of dpop"));
        }
        let access_token =
            text("access_token").ok_or_else(|| unexpected("token: there is no access token"))?;
        let (refresh_token, id_token, scope) = (text("refresh_token"), text("id_token"), text("scope"));
        let usual = config.access_token_expires_in.and_then(|seconds| u64::try_from(seconds).ok());
        let lifetime = said.get("expires_in").and_then(Value::as_u64).or(usual);
        let expires = lifetime.map(|seconds| now.as_secs() + seconds);
        Ok(Granted { access_token, expires, refresh_token, id_token, scope })
    }

    /// The claims of an ID token that is for us (OpenID Connect Core, 3.1.3.7).
    async fn identity(
        &self,
        id_token: &str,
        nonce: Option<&str>,
        now: Duration,
    ) -> Result<Map<String, Value>, Refused> {
        let wrong = |reason: &str| Refused::Trouble(Trouble::Token(format!("ID token: {reason}")));
        let token = Token::parse(id_token.as_bytes()).map_err(|_| wrong("it cannot be read"))?;
        self.provider.is_signed(&token, now).await?;
        self.check_time(&token)(now)?;
        let client = self.provider.config.client_id.as_str();
        let issuer = self.provider.discovery(now).await?.issuer.clone();
        if issuer.is_none() || token.text("iss") != issuer.as_deref() {
            return Err(wrong("the issuer is another"));
        }
        let party = token.claims.get("azp");
        if !holds(token.claims.get("aud"), client) || party.is_some_and(|party| party != client) {
            return Err(wrong("it is for another client"));
        }
        if token.time("exp").is_none() || token.text("sub").is_none() {
            return Err(wrong("it lacks `exp` or `sub`"));
        }
        if nonce.is_some() && token.text("nonce") != nonce {
            return Err(wrong("it is for another login"));
        }
        Ok(token.claims)
    }

    async fn known_user(
        &self,
        access_token: &str,
        claims: &Map<String, Value>,
        now: Duration,
    ) -> Result<Option<Map<String, Value>>, Refused> {
        if !self.provider.config.set_userinfo_header {
            return Ok(None);
        }
        let user = self.provider.user(access_token, now).await?;
        if user.as_ref().is_some_and(|user| user.get("sub") != claims.get("sub")) {
            return Err(unexpected("userinfo: it is somebody else's").into());
        }
        Ok(user)
    }

    /// The answer that ends a session; its cookies are forgotten by others.
    pub(super) async fn log_out(&self, session: Option<Session>, now: Duration) -> Answer {
        let config = &self.provider.config;
        let discovery = self.provider.discovery(now).await.ok();
        if let (true, Some(session)) = (config.revoke_tokens_on_logout, &session)
            && let Some(uri) =
                discovery.as_ref().and_then(|discovery| discovery.revocation_endpoint.as_deref())
        {
            let tokens = [
                ("refresh_token", session.refresh_token.as_ref()),
                ("access_token", Some(&session.access_token)),
            ];
            for (hint, token) in tokens {
                let Some(token) = token else { continue };
                let fields = vec![("token", token.clone()), ("token_type_hint", hint.to_owned())];
                let proof = (config.token_endpoint_auth_method.as_str(), fields);
                // The session ends here whatever the identity provider makes of it.
                let _ = self.provider.submit("revocation", uri, proof, (Vec::new(), now)).await;
            }
        }
        let after = config.post_logout_redirect_uri.as_deref();
        let end = discovery.as_ref().and_then(|discovery| discovery.end_session_endpoint.as_deref());
        let location = match end {
            None => after.unwrap_or("/").to_owned(),
            Some(end) => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("client_id", &config.client_id);
                if let Some(session) = &session {
                    query.append_pair("id_token_hint", &session.id_token);
                }
                if let Some(after) = after {
                    query.append_pair("post_logout_redirect_uri", after);
                }
                let separator = if end.contains('?') { '&' } else { '?' };
                format!("{end}{separator}{}", query.finish())
            }
        };
        Answer::new(302).field("Location", location)
    }
}
