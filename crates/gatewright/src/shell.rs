//! Words of a command line that is printed for pasting into a shell.

/// `word` as one word of a POSIX shell, with quotes only where they are needed.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_the_same_to_a_shell() {
        for word in
            ["http://127.0.0.1:9080/orders", "it's", "$(rm -rf /)", "a b", "", "*", "back\\slash", "\"q\""]
        {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
        assert_eq!(quoted("http://127.0.0.1:9080/orders"), "http://127.0.0.1:9080/orders");
    }
}
