//! Protos: what gRPC services can be asked and how their messages are written, compiled from what people write.
//!
//! A proto is the text of a `.proto` file, or a compiled set of files. Both planes compile it with this code: the
//! control plane to refuse a wrong one when it is written, with line and reason, gateways to serve with it. Nothing is
//! read from a disk: a text may import the files that come with Protocol Buffers, and nothing else.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miette::Diagnostic;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// The plugins that read protos: they are built anew where a proto changes.
pub const READERS: &[&str] = &["grpc-transcode"];

/// How deep declarations may nest; the compiler calls itself for each level.
const NESTING_MAX: usize = 64;

/// What the text of a proto is called in messages.
const FILE: &str = "proto";

/// A compiled proto.
#[derive(Clone, Debug)]
pub struct Proto(DescriptorPool);

/// The protos of a gateway group, by id.
#[derive(Clone, Debug, Default)]
pub struct Protos(BTreeMap<String, Proto>);

impl Protos {
    /// The proto with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Proto> {
        self.0.get(id)
    }

    /// Puts a proto where `id` is.
    pub fn set(&mut self, id: &str, proto: Proto) {
        self.0.insert(id.to_owned(), proto);
    }

    /// Forgets the proto with this id.
    pub fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }
}

impl Proto {
    /// Compiles the text of a `.proto` file, or a `FileDescriptorSet` in base64.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn compile(content: &str) -> Result<Self, String> {
        let packed: Vec<u8> = content.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        // No text of a proto is base64 by chance: every statement ends with a semicolon or a brace.
        match STANDARD.decode(packed) {
            Ok(set) if !set.is_empty() => Self::of_set(&set),
            _ => Self::of_text(content),
        }
    }

    fn of_text(text: &str) -> Result<Self, String> {
        if let Some(line) = too_deep(text) {
            return Err(format!("line {line}: declarations nest at most {NESTING_MAX} levels deep"));
        }
        let mut resolver = ChainFileResolver::new();
        resolver.add(Text(text.to_owned()));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true);
        compiler.open_file(FILE).map_err(|error| explain(&error, text))?;
        Ok(Self(compiler.descriptor_pool()))
    }

    fn of_set(set: &[u8]) -> Result<Self, String> {
        let mut set = FileDescriptorSet::decode(set)
            .map_err(|_| "is neither the text of a proto nor a set of compiled files in base64".to_owned())?;
        let mut pool = DescriptorPool::global();
        // What comes with Protocol Buffers is there already, whoever compiled the set.
        set.file.retain(|file| pool.get_file_by_name(file.name()).is_none());
        pool.add_file_descriptor_set(set).map_err(|error| error.to_string())?;
        Ok(Self(pool))
    }

    /// What `service`, with its package, can be asked under this name.
    pub(crate) fn method(&self, service: &str, method: &str) -> Option<MethodDescriptor> {
        let service = self.0.get_service_by_name(service)?;
        service.methods().find(|known| known.name() == method)
    }

    /// The kind of message with this name, its package included.
    pub(crate) fn message(&self, name: &str) -> Option<MessageDescriptor> {
        self.0.get_message_by_name(name.trim_start_matches('.'))
    }
}

/// How gRPC servers say more of an error (`grpc-status-details-bin`).
pub(crate) static STATUS: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let text = "syntax = \"proto3\"; package google.rpc; import \"google/protobuf/any.proto\"; \
                message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }";
    match Proto::of_text(text).map(|proto| proto.message("google.rpc.Status")) {
        Ok(Some(status)) => status,
        _ => unreachable!("the text above compiles"),
    }
});

/// The one file there is beside those that come with Protocol Buffers.
struct Text(String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            FILE => File::from_source(FILE, &self.0),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The line in which `text` nests too deep.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, line) in text.lines().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'{' | b'[' | b'(' | b'<' => depth += 1,
                b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > NESTING_MAX {
                return Some(index + 1);
            }
        }
    }
    None
}

/// What the compiler says is wrong, and where.
fn explain(error: &protox::Error, text: &str) -> String {
    let first = error.related().and_then(|mut related| related.next());
    // Of several places the last one is where it went wrong.
    let place = |diagnostic: &dyn Diagnostic| diagnostic.labels()?.map(|label| label.offset()).max();
    let offset = place(error).or_else(|| place(first?));
    let reason = error.to_string();
    if reason.starts_with("import ") {
        return format!(
            "{reason}: only the files that come with Protocol Buffers can be imported; \
             send what needs others as a compiled set of files in base64"
        );
    }
    match offset.and_then(|offset| text.get(..offset)) {
        Some(before) => format!("line {}: {reason}", before.matches('\n').count() + 1),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETER: &str = "syntax = \"proto3\";\npackage hello;\nimport \"google/protobuf/timestamp.proto\";\n\
        service Greeter { rpc Greet (Name) returns (Greeting); }\n\
        message Name { string name = 1; }\nmessage Greeting { string text = 1; google.protobuf.Timestamp at = 2; }\n";

    #[test]
    fn a_text_says_what_a_service_can_be_asked() {
        let proto = Proto::compile(GREETER).unwrap();
        let method = proto.method("hello.Greeter", "Greet").unwrap();
        assert_eq!(method.input().full_name(), "hello.Name");
        assert!(proto.method("hello.Greeter", "Leave").is_none());
        assert!(proto.method("Greeter", "Greet").is_none());
        assert_eq!(proto.message(".hello.Name"), Some(method.input()));
    }

    #[test]
    fn a_compiled_set_of_files_says_the_same() {
        let Proto(pool) = Proto::compile(GREETER).unwrap();
        let set = STANDARD.encode(pool.encode_to_vec());
        let wrapped = format!("{}\n{}\n", &set[..40], &set[40..]);
        let proto = Proto::compile(&wrapped).unwrap();
        assert_eq!(proto.method("hello.Greeter", "Greet").unwrap().output().full_name(), "hello.Greeting");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("syntax = \"proto3\";\nmessage A {\n  string name = ;\n}\n", "line 3: "),
            ("syntax = \"proto3\";\n\nmessage A { Missing one = 1; }\n", "line 3: "),
            ("syntax = \"proto3\";\nmessage A {}\nmessage A {}\n", "line 3: "),
            (
                "syntax = \"proto3\";\nimport \"other.proto\";\n",
                "only the files that come with Protocol Buffers",
            ),
            ("hello", "line 1: "),
            ("AAAA", "neither the text of a proto"),
        ] {
            let wrong = Proto::compile(text).unwrap_err();
            assert!(wrong.contains(expected), "{text}: {wrong}");
        }
        let deep = format!("syntax = \"proto3\";\n{}", "message A {".repeat(100_000));
        assert!(Proto::compile(&deep).unwrap_err().starts_with("line 2: declarations nest"));
    }

    #[test]
    fn the_status_of_grpc_is_known() {
        assert_eq!(STATUS.full_name(), "google.rpc.Status");
    }
}
