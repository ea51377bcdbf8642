//! `sallet install`

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Name of the runtime
    #[arg(long, default_value = "sallet")]
    name: String,
    /// Docker's configuration file
    #[arg(long, default_value = "/etc/docker/daemon.json")]
    config: PathBuf,
    /// A flag to pass to the runtime; may be repeated
    #[arg(long = "runtime-arg", value_name = "FLAG", allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Install {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let program = std::env::current_exe().context("find our own program")?;
        let before = match fs::read(&self.config) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is no valid JSON", self.config.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => json!({}),
            Err(error) => {
                return Err(error).with_context(|| self.config.display().to_string());
            }
        };
        let after = register(before, &self.name, &program, &self.arguments)?;
        replace(&self.config, &format!("{}\n", serde_json::to_string_pretty(&after)?))?;
        let (name, config, path) = (&self.name, self.config.display(), program.display());
        println!("Registered runtime {name:?} in {config}.");
        println!("Docker:     systemctl reload docker; docker run --runtime={name} IMAGE");
        println!("Podman:     podman --runtime {path} run IMAGE");
        println!("containerd: add to /etc/containerd/config.toml and restart it:");
        println!("  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}]");
        println!("    runtime_type = \"io.containerd.runc.v2\"");
        println!("    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}.options]");
        println!("      BinaryName = \"{path}\"");
        Ok(ExitCode::SUCCESS)
    }
}

/// Adds the runtime and leaves everything else as it is.
fn register(mut config: Value, name: &str, program: &Path, arguments: &[String]) -> Result<Value> {
    let mut runtime = json!({"path": program});
    if !arguments.is_empty() {
        runtime["runtimeArgs"] = json!(arguments);
    }
    config
        .as_object_mut()
        .context("Docker's configuration is no JSON object")?
        .entry("runtimes")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .context("\"runtimes\" in Docker's configuration is no JSON object")?
        .insert(name.to_owned(), runtime);
    Ok(config)
}

/// A reader sees the old file or the new one, with the old permissions.
fn replace(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension("json.sallet");
    let mut file = fs::File::create(&draft).with_context(|| format!("write {}", draft.display()))?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path).with_context(|| format!("replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_settings_stay() {
        let before = json!({"debug": true, "runtimes": {"other": {"path": "/x"}}});
        let after = register(before, "sallet", Path::new("/bin/sallet"), &[]).unwrap();
        assert_eq!(
            after,
            json!({"debug": true, "runtimes": {
                "other": {"path": "/x"}, "sallet": {"path": "/bin/sallet"}}})
        );
        assert!(register(json!([]), "sallet", Path::new("/x"), &[]).is_err());
    }
}
