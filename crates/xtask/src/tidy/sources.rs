//! What every source file has to look like: it says what it is for, it stays short, it promises nothing.

use super::{File, files, refuse};

/// Lines of a file, tests not counted.
const LINES_MAX: usize = 500;

/// Files that may be longer, with their length; the list may only shrink. Each needs a comment with the reason.
const LONGER: &[(&str, usize)] = &[];

/// Split, so that this file does not contain what it forbids.
const PROMISE: &str = concat!("TO", "DO");

fn lacks_module_doc(file: &File) -> bool {
    !file.text.starts_with("//!")
}

/// Lines before an inline test module; files that are tests as a whole count nothing.
fn lines_to_read(file: &File) -> usize {
    if file.path.ends_with("/tests.rs") || file.path.contains("/tests/") {
        return 0;
    }
    let lines: Vec<&str> = file.text.lines().collect();
    let opens_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(opens_tests).unwrap_or(lines.len())
}

/// Files over the limit, and waivers that grew, shrank or became pointless.
fn length_violations(lengths: &[(String, usize)], waivers: &[(&str, usize)]) -> Vec<String> {
    let mut violations = Vec::new();
    for (path, lines) in lengths {
        let waived = waivers.iter().find(|(waived, _)| waived == path).map(|(_, lines)| *lines);
        match waived {
            None if *lines > LINES_MAX => {
                violations.push(format!("{path}: {lines} lines, {LINES_MAX} allowed"))
            }
            Some(waived) if *lines > waived => {
                violations.push(format!("{path}: {lines} lines, its waiver allows {waived}"));
            }
            Some(waived) if *lines < waived => {
                violations.push(format!("{path}: {lines} lines, lower its waiver from {waived}"));
            }
            None | Some(_) => {}
        }
    }
    let exists = |waived: &str| lengths.iter().any(|(path, _)| path == waived);
    violations.extend(
        waivers
            .iter()
            .filter(|(path, _)| !exists(path))
            .map(|(path, _)| format!("{path}: remove its waiver")),
    );
    violations
}

/// Lines with a promise that names no issue, as in `(#12)` behind it.
fn unnumbered_promises(file: &File) -> Vec<String> {
    let is_unnumbered = |line: &str| {
        line.split(PROMISE).skip(1).any(|rest| {
            let number =
                rest.strip_prefix("(#").and_then(|rest| rest.split_once(')')).map(|(number, _)| number);
            !number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    let numbered = file.text.lines().enumerate().filter(|(_, line)| is_unnumbered(line));
    numbered.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim())).collect()
}

#[test]
fn every_file_says_what_it_is_for() {
    let all = files("rs");
    let found: Vec<String> =
        all.iter().filter(|file| lacks_module_doc(file)).map(|file| file.path.clone()).collect();
    refuse(&found, "Begin the file with `//!`: first sentence its responsibility, then its invariants.");
}

#[test]
fn files_stay_short() {
    let lengths: Vec<(String, usize)> =
        files("rs").iter().map(|file| (file.path.clone(), lines_to_read(file))).collect();
    refuse(
        &length_violations(&lengths, LONGER),
        "Give a part of the file a name and a file of its own; tests of more than 150 lines move to tests.rs.",
    );
}

#[test]
fn no_promise_without_an_issue() {
    let found: Vec<String> = files("rs").iter().flat_map(unnumbered_promises).collect();
    refuse(&found, &format!("Do it now, or open an issue and write {PROMISE}(#<number>)."));
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn a_module_doc_stands_at_the_very_beginning() {
    assert!(!lacks_module_doc(&file("a.rs", "//! Says it.\nuse x;\n")));
    assert!(lacks_module_doc(&file("a.rs", "use x;\n//! Too late.\n")));
    assert!(lacks_module_doc(&file("a.rs", "")));
}

#[test]
fn tests_do_not_count_as_lines_to_read() {
    let code = "//! Doc.\nfn f() {}\n\n";
    let inline = format!("{code}#[cfg(test)]\nmod tests {{\n    fn t() {{}}\n}}\n");
    assert_eq!(lines_to_read(&file("src/a.rs", &inline)), 3);
    let sibling = format!("{code}#[cfg(test)]\nmod tests;\nfn g() {{}}\n");
    assert_eq!(lines_to_read(&file("src/a.rs", &sibling)), 6);
    assert_eq!(lines_to_read(&file("src/a/tests.rs", code)), 0);
    assert_eq!(lines_to_read(&file("crates/a/tests/api/service.rs", code)), 0);
}

#[test]
fn waivers_may_only_shrink() {
    let lengths =
        [("a".to_owned(), 500), ("b".to_owned(), 501), ("c".to_owned(), 600), ("d".to_owned(), 700)];
    let check = |waivers: &[(&str, usize)]| length_violations(&lengths, waivers);
    assert_eq!(check(&[("b", 501), ("c", 600), ("d", 700)]), [""; 0]);
    assert_eq!(
        check(&[("b", 501), ("c", 599), ("d", 701), ("e", 900)]),
        [
            "c: 600 lines, its waiver allows 599",
            "d: 700 lines, lower its waiver from 701",
            "e: remove its waiver"
        ]
    );
    assert_eq!(check(&[("c", 600), ("d", 700)]), ["b: 501 lines, 500 allowed"]);
}

#[test]
fn a_promise_needs_a_number() {
    let check = |text: String| unnumbered_promises(&file("a.rs", &text)).len();
    assert_eq!(check(format!("// {PROMISE}(#12): later\n")), 0);
    assert_eq!(check(format!("// {PROMISE}: later\n// {PROMISE}(#)\n// {PROMISE}(#x1)\nfn f() {{}}\n")), 3);
}
