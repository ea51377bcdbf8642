//! `sallet spec`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::cli::Globals;
use crate::oci::template;

#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// Folder to write config.json to
    #[arg(long, short, default_value = ".")]
    bundle: PathBuf,
    /// For use without root on the host
    #[arg(long)]
    rootless: bool,
}

impl Spec {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let rootless = self.rootless || globals.rootless.as_deref() == Some("true");
        let ids =
            rootless.then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let text = serde_json::to_string_pretty(&template::config(ids))?;
        let path = self.bundle.join("config.json");
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&path).with_context(|| {
                match path.symlink_metadata() {
                    Ok(_) => format!("{} exists; remove it first", path.display()),
                    Err(_) => format!("write {}", path.display()),
                }
            })?;
        writeln!(file, "{text}")?;
        Ok(ExitCode::SUCCESS)
    }
}
