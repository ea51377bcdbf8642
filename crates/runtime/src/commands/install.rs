//! `sallet install` and `sallet uninstall`: the runtime in Docker's configuration.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{Cli, Globals};
use crate::output::say;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Parser};
use serde_json::{Map, Value, json};

/// As many links one after the other as Linux follows.
const MAX_LINKS: usize = 40;

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    target: Target,
    /// A flag to pass to the runtime; may be repeated
    #[arg(long = "runtime-arg", value_name = "FLAG", allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    target: Target,
}

/// Tells an error as to a person, unless there is a log for it; with what to do where rights are missing.
fn told(globals: &Globals, command: &str, done: Result<ExitCode>) -> Result<ExitCode> {
    let done = done.map_err(|error| {
        let denied = (error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()))
            .any(|cause| matches!(cause.kind(), io::ErrorKind::PermissionDenied));
        if denied && !rustix::process::geteuid().is_root() {
            anyhow!(
                "{error:#}; this file is not yours to change: run it as root (sudo sallet {command}), or name \
                 another one (rootless Docker's: --config ~/.config/docker/daemon.json)"
            )
        } else {
            error
        }
    });
    match done {
        Err(error) if globals.log.is_none() => {
            eprintln!("sallet {command}: {error:#}");
            Ok(ExitCode::FAILURE)
        }
        done => done,
    }
}

/// What both are about.
#[derive(Debug, Args)]
struct Target {
    /// Name of the runtime
    #[arg(long, default_value = "sallet")]
    name: String,
    /// Docker's configuration file
    #[arg(long, default_value = "/etc/docker/daemon.json")]
    config: PathBuf,
    /// Print what the file would be, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Install {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        told(globals, "install", self.done())
    }

    fn done(&self) -> Result<ExitCode> {
        check_name(&self.target.name)?;
        check_arguments(&self.arguments)?;
        let program = std::env::current_exe().context("find our own program")?;
        let file = DaemonFile::read(&self.target.config)?;
        let after = register(file.settings.clone(), &self.target.name, &program, &self.arguments)
            .with_context(|| file.path.display().to_string())?;
        let (name, path) = (&self.target.name, program.display());
        let (done, already) =
            (format!("Registered runtime {name:?}"), format!("it has runtime {name:?} already"));
        self.target.put(&file, after, &done, &already)?;
        say!("Docker:     docker run --runtime={name} IMAGE")?;
        say!("Podman:     podman --runtime {path} run IMAGE")?;
        say!("containerd: add to /etc/containerd/config.toml and restart it:")?;
        say!("  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}]")?;
        say!("    runtime_type = \"io.containerd.runc.v2\"")?;
        say!("    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}.options]")?;
        say!("      BinaryName = \"{path}\"")?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Uninstall {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        told(globals, "uninstall", self.done())
    }

    fn done(&self) -> Result<ExitCode> {
        let file = DaemonFile::read(&self.target.config)?;
        let name = &self.target.name;
        let after =
            unregister(file.settings.clone(), name).with_context(|| file.path.display().to_string())?;
        let (done, already) = (format!("Removed runtime {name:?}"), format!("it has no runtime {name:?}"));
        if self.target.put(&file, after, &done, &already)? {
            say!("Containers that were made with it cannot be started until it is back.")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Target {
    /// Writes other settings, if they are others; whether it did.
    fn put(&self, file: &DaemonFile, after: Map<String, Value>, done: &str, already: &str) -> Result<bool> {
        let text = format!("{}\n", serde_json::to_string_pretty(&after)?);
        if self.dry_run {
            say!("{}", text.trim_end())?;
            eprintln!("This would be {}; nothing was changed.", file.path.display());
            return Ok(false);
        }
        if after == file.settings {
            say!("{}: {already}; nothing was changed.", file.path.display())?;
            return Ok(false);
        }
        let backup = file.replace(&text)?;
        say!("{done}: {}", file.path.display())?;
        if let Some(backup) = backup {
            say!("The file as it was: {}", backup.display())?;
        }
        say!("Now let Docker read it: systemctl reload docker")?;
        say!("     (without systemd: kill -HUP \"$(cat /var/run/docker.pid)\")")?;
        Ok(true)
    }
}

/// Docker's configuration.
#[derive(Debug)]
struct DaemonFile {
    /// Where it is, behind all links.
    path: PathBuf,
    /// As it is; none where there is no file.
    text: Option<Vec<u8>>,
    settings: Map<String, Value>,
}

impl DaemonFile {
    fn read(path: &Path) -> Result<DaemonFile> {
        let path = behind_links(path)?;
        let text = match fs::read(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let settings = match text.as_deref().map(<[u8]>::trim_ascii) {
            None | Some([]) => json!({}),
            Some(text) => serde_json::from_slice(text).with_context(|| {
                format!("{} is no valid JSON (it was not changed; mend it first)", path.display())
            })?,
        };
        match settings {
            Value::Object(settings) => Ok(DaemonFile { path, text, settings }),
            _ => bail!("{} holds no JSON object (it was not changed)", path.display()),
        }
    }

    /// A reader sees the old file or the new one, with the old owner and permissions. Gives the place where the old
    /// one is kept.
    fn replace(&self, text: &str) -> Result<Option<PathBuf>> {
        if let Some(folder) = self.path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .with_context(|| format!("make {}", folder.display()))?;
        }
        let beside = |suffix: &str| {
            let mut name = self.path.file_name().unwrap_or_default().to_os_string();
            name.push(suffix);
            self.path.with_file_name(name)
        };
        let mut backup = None;
        if let Some(old) = &self.text {
            let kept = beside(".before-sallet");
            self.write_at(&kept, old)?;
            backup = Some(kept);
        }
        self.write_at(&self.path, text.as_bytes())?;
        Ok(backup)
    }

    /// Writes a file like this one in one step, and leaves nothing where that fails.
    fn write_at(&self, path: &Path, text: &[u8]) -> Result<()> {
        let mut draft = path.to_owned().into_os_string();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
            if let Ok(old) = fs::metadata(&self.path) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
                file.set_permissions(old.permissions())?;
            }
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&draft, path)
        };
        write().with_context(|| format!("write {}", path.display())).inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
    }
}

/// The file that a path means, which need not be there yet: a link stays one, and what it names is replaced.
fn behind_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    bail!("{}: too many symbolic links", path.display())
}

/// A name that Docker takes: with another one it would not start again.
fn check_name(name: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    ensure!(
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(known),
        "--name {name:?}: letters, digits and _.- only, a letter or digit first"
    );
    ensure!(name != "runc", "--name {name}: Docker keeps this name for its own runtime; choose another one");
    Ok(())
}

/// Flags that each call of the runtime can begin with: with others no container would start.
fn check_arguments(arguments: &[String]) -> Result<()> {
    let words = ["sallet"].into_iter().chain(arguments.iter().map(String::as_str)).chain(["list"]);
    let error = match Cli::try_parse_from(words) {
        Ok(cli) if cli.globals.strace && cli.globals.debug_log.is_none() => {
            bail!("--runtime-arg: --strace wants --debug-log FILE beside it")
        }
        Ok(cli) if cli.command.is_some() => return Ok(()),
        // The last flag took the command.
        Ok(_) => bail!("--runtime-arg: the last flag wants a value"),
        Err(error) => error,
    };
    let text = error.to_string();
    let reason: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    bail!("--runtime-arg: {}", reason.join(" ").trim_start_matches("error: "))
}

/// Adds the runtime and leaves everything else as it is.
fn register(
    mut settings: Map<String, Value>,
    name: &str,
    program: &Path,
    arguments: &[String],
) -> Result<Map<String, Value>> {
    let mut runtime = json!({"path": program});
    if !arguments.is_empty() {
        runtime["runtimeArgs"] = json!(arguments);
    }
    settings
        .entry("runtimes")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .context("\"runtimes\" is no JSON object")?
        .insert(name.to_owned(), runtime);
    Ok(settings)
}

/// Takes the runtime out, and the list of runtimes where it was the only one.
fn unregister(mut settings: Map<String, Value>, name: &str) -> Result<Map<String, Value>> {
    if settings.get("default-runtime").and_then(Value::as_str) == Some(name) {
        bail!("{name:?} is Docker's \"default-runtime\": choose another one first");
    }
    if let Some(runtimes) = settings.get_mut("runtimes") {
        let runtimes = runtimes.as_object_mut().context("\"runtimes\" is no JSON object")?;
        runtimes.shift_remove(name);
        if runtimes.is_empty() {
            settings.shift_remove("runtimes");
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn other_settings_stay() {
        let before = object(&json!({"debug": true, "runtimes": {"other": {"path": "/x"}}}));
        let after = register(before.clone(), "sallet", Path::new("/bin/sallet"), &[]).unwrap();
        let wanted = json!({"debug": true, "runtimes": {
            "other": {"path": "/x"}, "sallet": {"path": "/bin/sallet"}}});
        assert_eq!(after, object(&wanted));
        assert_eq!(unregister(after, "sallet").unwrap(), before);
        assert!(register(object(&json!({"runtimes": []})), "sallet", Path::new("/x"), &[]).is_err());
        let alone = register(Map::new(), "sallet", Path::new("/x"), &["--debug".into()]).unwrap();
        assert_eq!(alone["runtimes"]["sallet"]["runtimeArgs"], json!(["--debug"]));
        assert_eq!(unregister(alone, "sallet").unwrap(), Map::new());
        assert!(unregister(object(&json!({"default-runtime": "sallet"})), "sallet").is_err());
    }

    #[test]
    fn the_order_stays() {
        let text = r#"{"z":1,"runtimes":{"y":{"path":"/y"},"b":{"path":"/b"}},"a":{"q":1,"c":2}}"#;
        let before: Map<String, Value> = serde_json::from_str(text).unwrap();
        let after = register(before.clone(), "m", Path::new("/m"), &[]).unwrap();
        let wanted = text.replace("\"/b\"}", "\"/b\"},\"m\":{\"path\":\"/m\"}");
        assert_eq!(serde_json::to_string(&after).unwrap(), wanted);
        assert_eq!(serde_json::to_string(&unregister(after, "m").unwrap()).unwrap(), text);
        let after = unregister(before, "y").unwrap();
        assert!(serde_json::to_string(&after).unwrap().starts_with(r#"{"z":1,"runtimes":{"b":"#));
    }

    #[test]
    fn what_would_stop_docker_is_refused() {
        for name in ["sallet", "sallet-2", "My.runtime_1"] {
            check_name(name).unwrap();
        }
        for name in ["", "runc", "a b", "-x", "a/b", "a\"b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        let check = |words: &[&str]| {
            check_arguments(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        check(&[]).unwrap();
        check(&["--debug-log", "/tmp/log", "--strace", "--memory=checked"]).unwrap();
        for words in [&["--bogus"][..], &["--strace"], &["list"], &["--help"], &["--debug-log"]] {
            assert!(check(words).is_err(), "{words:?}");
        }
        let error = check(&["--strace"]).unwrap_err().to_string();
        assert!(error.starts_with("--runtime-arg: ") && error.contains("--debug-log"), "{error}");
    }
}
