//! `gatewright gateway-group`: lets gateways join a gateway group.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Failure, admin_client};
use crate::admin_client::IssuedCertificate;
use crate::announce;
use crate::arguments::{AddInstance, GatewayGroup, GatewayGroupCommand};
use crate::shell::quoted;

/// Creates a token or a certificate and prints the command that joins a gateway with it.
pub(crate) fn run(arguments: &GatewayGroup) -> Result<(), Failure> {
    let GatewayGroupCommand::AddInstance(wish) = &arguments.command;
    let client = admin_client(&wish.access)?;
    let group = wish.group.as_str();
    let command = match &wish.certificate_dir {
        None => with_token(wish, &client.instance_token_create(group)?),
        Some(directory) => {
            let files = Files::of(directory);
            files.write(&client.instance_certificate_create(group, wish.days)?)?;
            with_certificate(wish, &files)
        }
    };
    let shown = match &wish.certificate_dir {
        None => "Run this on the machine of the gateway; the token is shown this once:",
        Some(_) => "Copy the directory to the machine of the gateway and run this there:",
    };
    announce::line(shown);
    announce::line("");
    announce::line(command);
    Ok(())
}

/// The token is in the environment, because a command line is visible to everybody on the machine.
fn with_token(wish: &AddInstance, token: &str) -> String {
    format!("GATEWRIGHT_TOKEN={} {}", quoted(token), gateway(wish))
}

fn with_certificate(wish: &AddInstance, files: &Files) -> String {
    let path = |path: &Path| quoted(&path.display().to_string());
    format!(
        "{} --certificate {} --key {} --ca {}",
        gateway(wish),
        path(&files.certificate),
        path(&files.key),
        path(&files.authority)
    )
}

fn gateway(wish: &AddInstance) -> String {
    let (control_plane, group) = (quoted(&wish.control_plane), quoted(wish.group.as_str()));
    format!("gatewright gateway --control-plane {control_plane} --group {group}")
}

/// Where a certificate is written to.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

impl Files {
    fn of(directory: &Path) -> Self {
        let file = |name| directory.join(name);
        Self {
            certificate: file("certificate.pem"),
            key: file("certificate-key.pem"),
            authority: file("ca.pem"),
        }
    }

    /// The certificate comes last, and each file is replaced whole: a gateway that runs with them must never read half
    /// of one.
    fn write(&self, issued: &IssuedCertificate) -> Result<(), Failure> {
        let texts = [
            (&self.authority, &issued.authority),
            (&self.key, &issued.private_key),
            (&self.certificate, &issued.certificate),
        ];
        for (path, text) in texts {
            let written = write(path, text);
            written.map_err(|source| Failure::CertificateFile { path: path.clone(), source })?;
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn wish(control_plane: &str) -> AddInstance {
        let line = ["gatewright", "gateway-group", "add-instance", "--control-plane", control_plane];
        let Command::GatewayGroup(arguments) = Arguments::try_parse_from(line).unwrap().command else {
            panic!("not `gateway-group`");
        };
        let GatewayGroupCommand::AddInstance(wish) = arguments.command;
        wish
    }

    #[test]
    fn the_command_that_is_printed_can_be_pasted() {
        let command = with_token(&wish("https://cp:7943"), "gwi-1.ab");
        let expected =
            "GATEWRIGHT_TOKEN=gwi-1.ab gatewright gateway --control-plane https://cp:7943 --group default";
        assert_eq!(command, expected);
        let files = Files::of(Path::new("/a b"));
        let command = with_certificate(&wish("https://cp:7943; rm"), &files);
        assert!(command.contains("'https://cp:7943; rm'"), "{command}");
        assert!(command.ends_with("--key '/a b/certificate-key.pem' --ca '/a b/ca.pem'"), "{command}");
    }
}
