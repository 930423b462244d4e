//! Tokens that come with a request: found, and judged.

use std::time::Duration;

use serde_json::{Map, Value};

use super::OpenIdConnect;
use super::provider::Trouble;
use crate::authentication;
use crate::exchange::Exchange;
use crate::jose::Token;

/// What a request shows.
pub(super) enum Shown {
    Nothing,
    Malformed,
    Token(String),
}

/// The token that a request brings.
pub(super) fn shown(exchange: &Exchange<'_>) -> Shown {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(value) = exchange.field("X-Access-Token") {
        return Shown::Token(text(value));
    }
    let Some(value) = authentication::shown(exchange, "Authorization") else { return Shown::Nothing };
    let mut words = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        (Some(scheme), Some(token)) if scheme.eq_ignore_ascii_case(b"bearer") => Shown::Token(text(token)),
        (Some(_), Some(_)) => Shown::Nothing,
        _ => Shown::Malformed,
    }
}

/// Why a good token does not let a request in.
pub(super) enum Refused {
    /// It is not good, or nobody can say.
    Trouble(Trouble),
    /// What it says is not what the configuration demands.
    Unfit(&'static str),
    /// It is not for this.
    Forbidden(&'static str),
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

fn refused(reason: &str) -> Refused {
    Refused::Trouble(Trouble::Token(reason.to_owned()))
}

impl OpenIdConnect {
    /// The claims of a token that is good.
    pub(super) async fn judge(
        &self,
        shown: &str,
        more: Vec<(String, Vec<u8>)>,
        now: Duration,
    ) -> Result<Map<String, Value>, Refused> {
        let claims = match (&self.public_key, self.provider.config.use_jwks) {
            (Some(key), _) => {
                let token =
                    Token::parse(shown.as_bytes()).map_err(|_| refused("the token cannot be read"))?;
                let expected = self.provider.config.token_signing_alg_values_expected.as_deref();
                let algorithm = token.algorithm().filter(|algorithm| {
                    key.is_for(*algorithm)
                        && expected.is_none_or(|name| crate::jose::Algorithm::of(name) == Some(*algorithm))
                });
                if !algorithm.is_some_and(|algorithm| token.is_signed_by(key, algorithm)) {
                    return Err(refused("the signature does not verify"));
                }
                self.check_time(&token)(now)?;
                // The key was configured: who else is trusted does not depend on what is published now.
                let issuer = self.provider.discovery(now).await.ok();
                self.check_issuer(&token.claims, issuer.and_then(|known| known.issuer.clone()).as_deref())?;
                token.claims
            }
            (None, true) => {
                let token =
                    Token::parse(shown.as_bytes()).map_err(|_| refused("the token cannot be read"))?;
                self.provider.is_signed(&token, now).await?;
                self.check_time(&token)(now)?;
                let issuer = self.provider.discovery(now).await?.issuer.clone();
                self.check_issuer(&token.claims, issuer.as_deref())?;
                token.claims
            }
            (None, false) => self.introspected(shown, more, now).await?,
        };
        self.check_claims(&claims)?;
        Ok(claims)
    }

    /// What introspection says, or said before.
    async fn introspected(
        &self,
        shown: &str,
        more: Vec<(String, Vec<u8>)>,
        now: Duration,
    ) -> Result<Map<String, Value>, Refused> {
        // What other fields of the request decide cannot be remembered by the token.
        let is_kept = more.is_empty();
        if let Some(known) = self.remembered.get(shown, now).filter(|_| is_kept) {
            return Ok(known);
        }
        let claims = self.provider.introspect(shown, more, now).await?;
        let config = &self.provider.config;
        let expiry = config.introspection_expiry_claim.as_deref().unwrap_or("exp");
        let ends = claims.get(expiry).and_then(Value::as_u64).map(Duration::from_secs);
        if ends.is_some_and(|ends| ends <= now) {
            return Err(refused("the token has expired"));
        }
        let longest = u64::try_from(config.introspection_interval).ok().filter(|seconds| *seconds > 0);
        let longest = longest.map(|seconds| now + Duration::from_secs(seconds));
        let until = match (ends, longest) {
            (Some(ends), Some(longest)) => Some(ends.min(longest)),
            (ends, longest) => ends.or(longest),
        };
        if let Some(until) = until.filter(|_| is_kept) {
            self.remembered.put(shown, &claims, until, now);
        }
        Ok(claims)
    }

    /// Whether the time of a token is now.
    pub(super) fn check_time<'t>(&self, token: &'t Token) -> impl Fn(Duration) -> Result<(), Refused> + 't {
        let slack = u32::try_from(self.provider.config.iat_slack).map_or(f64::MAX, f64::from);
        move |now| {
            let now = now.as_secs_f64();
            let holds = |claim: &str, check: &dyn Fn(f64) -> bool| {
                !token.claims.contains_key(claim) || token.time(claim).is_some_and(check)
            };
            match () {
                () if !holds("exp", &|time| now < time) => Err(refused("the token has expired")),
                () if !holds("nbf", &|time| time <= now + slack) => {
                    Err(refused("the token is not valid yet"))
                }
                () if !holds("iat", &|time| time <= now + slack) => {
                    Err(refused("the token is from the future"))
                }
                () => Ok(()),
            }
        }
    }

    fn check_issuer(&self, claims: &Map<String, Value>, published: Option<&str>) -> Result<(), Refused> {
        let rule = self.provider.config.claim_validator.as_ref().and_then(|rules| rules.issuer.as_ref());
        let issuer = claims.get("iss").and_then(Value::as_str);
        let is_valid = match (rule.and_then(|rule| rule.valid_issuers.as_ref()), published) {
            (Some(valid), _) => valid.iter().any(|valid| Some(valid.as_str()) == issuer),
            (None, Some(published)) => issuer == Some(published),
            (None, None) => true,
        };
        if is_valid { Ok(()) } else { Err(refused("the issuer is not trusted")) }
    }

    /// What the configuration demands of claims.
    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Refused> {
        self.check_schema(|| Value::Object(claims.clone()))?;
        self.check_audience(claims)?;
        self.check_scopes(claims.get("scope"))
    }

    /// Whether what is known of a caller is as the schema of the configuration says.
    pub(super) fn check_schema(&self, known: impl Fn() -> Value) -> Result<(), Refused> {
        let Some(schema) = &self.claim_schema else { return Ok(()) };
        match schema.violations(&known()).is_empty() {
            true => Ok(()),
            false => Err(Refused::Unfit("the claims do not satisfy the schema")),
        }
    }

    pub(super) fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Refused> {
        let config = &self.provider.config;
        let rule = config.claim_validator.as_ref().and_then(|rules| rules.audience.as_ref());
        let Some(rule) = rule else { return Ok(()) };
        let audience = claims.get(&rule.claim);
        if rule.required && audience.is_none() {
            return Err(Refused::Forbidden("required audience claim not present"));
        }
        if rule.match_with_client_id && !holds(audience, &config.client_id) {
            return Err(Refused::Forbidden("mismatched audience"));
        }
        Ok(())
    }

    /// Whether the scopes that were granted hold those that are required.
    pub(super) fn check_scopes(&self, granted: Option<&Value>) -> Result<(), Refused> {
        let has = |wanted: &String| match granted {
            Some(Value::String(scopes)) => scopes.split(' ').any(|scope| scope == wanted),
            other => holds(other, wanted),
        };
        match self.provider.config.required_scopes.iter().flatten().all(has) {
            true => Ok(()),
            false => Err(Refused::Forbidden("required scopes not present")),
        }
    }
}

/// Whether a claim is `wanted`, or a list that holds it.
pub(super) fn holds(claim: Option<&Value>, wanted: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(wanted)),
        _ => false,
    }
}
