//! Passwords of users: hashed with Argon2id, never stored, never logged.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

use super::World;

/// Letters and digits that nobody mistakes for one another.
const ALPHABET: &[u8; 56] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";

/// A random password of 24 characters (about 139 bits).
pub(crate) fn password_new(world: &World) -> String {
    // A byte that would make early letters likelier is skipped; 32 bytes yield 28 letters on average, so that
    // another helping is rarely needed.
    let limit = (256 / ALPHABET.len()) * ALPHABET.len();
    let mut password = String::new();
    while password.len() < 24 {
        let letters = world.random().into_iter().map(usize::from).filter(|byte| *byte < limit);
        password.extend(letters.map(|byte| char::from(ALPHABET[byte % ALPHABET.len()])));
    }
    password.truncate(24);
    password
}

/// The hash of `password` in PHC form.
pub(crate) fn password_hash(world: &World, password: &str) -> Result<String, argon2::password_hash::Error> {
    let salt = &world.random()[..16];
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), salt)?;
    Ok(hash.to_string())
}

/// The hash of a password that nobody has, for users that do not exist: comparing takes as long as with any other.
pub(super) fn password_decoy() -> &'static str {
    "$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
}

/// Whether `password` is the one that `hash` was made of. Slow on purpose.
pub(super) fn password_matches(hash: &str, password: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let world = World::new(|| 0, || [7; 32]);
        let hash = password_hash(&world, "correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(password_matches(&hash, "correct horse"));
        assert!(!password_matches(&hash, "battery staple"));
        assert!(!password_matches("no hash at all", "correct horse"));
    }

    #[test]
    fn the_decoy_costs_what_a_password_costs() {
        let hash = password_hash(&World::new(|| 0, || [7; 32]), "x").unwrap();
        let cost = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(cost(password_decoy()), cost(&hash));
        assert!(PasswordHash::new(password_decoy()).is_ok());
        assert!(!password_matches(password_decoy(), ""));
    }

    #[test]
    fn a_random_password_has_24_unmistakable_characters() {
        let world = World::new(|| 0, || std::array::from_fn(|index| u8::try_from(index * 8).unwrap()));
        let password = password_new(&world);
        assert_eq!(password.len(), 24);
        assert!(password.bytes().all(|letter| ALPHABET.contains(&letter)), "{password}");
    }
}
