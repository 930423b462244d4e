//! The key that secrets in the store are encrypted with: given, in a file, or made by the first start.
//!
//! It is never in the database, so that a copy of the database alone reveals no secret; it must be backed up beside
//! it, because nothing can be decrypted without it.

use std::fs;
use std::io;
use std::path::Path;

use crate::app::World;
use crate::config::{Settings, StartError};
use crate::first_start::keep_secret;
use crate::store::{SecretKey, Store};

/// The file in the data directory.
const SECRET_KEY_FILE: &str = "secret-key";

/// The store with its key. Refused with a key that does not fit what is stored.
pub(crate) async fn unlock(store: Store, settings: &Settings, world: &World) -> Result<Store, StartError> {
    let path = settings.secret_key_file.clone().unwrap_or_else(|| settings.data_dir.join(SECRET_KEY_FILE));
    let origin = match &settings.secret_key {
        Some(_) => "(--secret-key)".to_owned(),
        None => format!("{} (--secret-key-file)", path.display()),
    };
    let failed = |reason: String| StartError::SecretKey { origin: origin.clone(), reason };
    let key = match &settings.secret_key {
        Some(text) => key_parse(text),
        None => {
            let may_create = settings.secret_key_file.is_none()
                && !store.has_secret_key_check().await.map_err(|error| failed(error.to_string()))?;
            key_read(&path, &settings.data_dir, may_create, world)
        }
    };
    let key = key.map_err(failed)?;
    let unlocked = store.with_secret_key(SecretKey::new(key), world.random()).await;
    unlocked.map_err(|error| failed(format!("{error}; give the key this store was first started with")))
}

fn key_read(path: &Path, data_dir: &Path, may_create: bool, world: &World) -> Result<[u8; 32], String> {
    match fs::read_to_string(path) {
        Ok(text) => key_parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_create => {
            let key = world.random();
            keep_secret(data_dir, SECRET_KEY_FILE, &hex::encode(key)).map_err(|error| error.to_string())?;
            // The name must be as durable as the contents: what is encrypted with a lost key is lost.
            fs::File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(|error| error.to_string())?;
            Ok(key)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn key_parse(text: &str) -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    let wrong = |_| "it must hold 64 hexadecimal digits; `openssl rand -hex 32` makes some".to_owned();
    hex::decode_to_slice(text.trim(), &mut key).map_err(wrong)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        assert_eq!(key_parse(&format!("{}\n", "0a".repeat(32))), Ok([10; 32]));
        for wrong in ["", "0a", &"0a".repeat(33), &"zz".repeat(32)] {
            assert!(key_parse(wrong).is_err(), "{wrong}");
        }
    }
}
