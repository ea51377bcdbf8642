//! The command line: runc's, and a few commands more.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use control::{HostFeature, HostUds, JailMode};

use crate::commands;
use crate::log::Format;

/// An OCI runtime whose containers run on a kernel of their own.
#[derive(Debug, Parser)]
#[command(name = "sallet", disable_version_flag = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// Reads the command line.
    pub(crate) fn read() -> Result<Cli, clap::Error> {
        let read = Cli::read_from(std::env::args_os());
        match read {
            // Help shows flags as they are written.
            Err(error) if error.kind() == ErrorKind::DisplayHelp => Cli::try_parse().and(Err(error)),
            read => read,
        }
    }

    fn read_from(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
        let mut command = flags_with_values(Cli::command());
        let mut matches = command.try_get_matches_from_mut(words)?;
        Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// As with runc every flag may be given with a value, and again: the last one counts.
fn flags_with_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| {
        if !matches!(argument.get_action(), ArgAction::SetTrue) {
            return argument;
        }
        let own = argument.get_id().clone();
        argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_name("BOOL")
            .default_value("false")
            .default_missing_value("true")
            .value_parser(boolean)
            .overrides_with(own)
    });
    command.mut_subcommands(flags_with_values)
}

/// The words for yes and no that runc knows.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false".into()),
    }
}

const HOST_UDS: &str = "\
Which unix sockets (connect) and FIFOs (open) of the host reach programs there:
  none     none; each joins programs of one container alone
  mounted  those that are themselves the source of a mount, such as /var/run/docker.sock [default]
  open     those in host folders that are mounted writable, too
  all      and sockets that are bound there are the host's
The annotation org.sallet.host-uds of config.json says the same for one container; where this flag is given it may only say less.";

/// Flags before the command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// Folder for the state of containers [default: /run/sallet; who is not root: $XDG_RUNTIME_DIR/sallet or
    /// /tmp/sallet-UID]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// File to append messages to instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Shape of those messages
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: Format,
    /// Also write messages for developers
    #[arg(long)]
    pub(crate) debug: bool,
    /// Take cgroupsPath as SLICE:PREFIX:NAME
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Accepted for runc's sake: it is found out
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    pub(crate) rootless: Option<String>,
    /// Accepted for runc's sake
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) criu: Option<PathBuf>,
    /// File for the kernel process's own messages; in a folder that is there, a file ID.log for each container
    #[arg(long, value_name = "FILE")]
    pub(crate) debug_log: Option<PathBuf>,
    /// Write the guest's system calls, as strace would, to the debug log, else to standard error
    #[arg(long)]
    pub(crate) strace: bool,
    /// Development aid: how much of the jail to use (on, noseccomp, off, probe)
    #[arg(long, value_name = "MODE", hide = true, value_parser = jail_mode)]
    pub(crate) jail: Option<JailMode>,
    /// Who looks at a guest's memory calls: the host's filter alone, or the kernel process too
    #[arg(long, value_enum, value_name = "MODE", default_value = "native")]
    pub(crate) memory: MemoryMode,
    /// Which sockets and FIFOs of the host reach its programs [default: mounted]
    #[arg(long, value_name = "WHICH", value_parser = host_uds, long_help = HOST_UDS)]
    pub(crate) host_uds: Option<HostUds>,
    /// Development aid: do without something that the host has (notify-flags, sealing, patching, spinning, parking, posting)
    #[arg(long, value_name = "FEATURE", hide = true, value_parser = host_feature)]
    pub(crate) without: Vec<HostFeature>,
    /// Descriptors above standard error that the caller left open
    #[arg(skip)]
    pub(crate) inherited: Vec<RawFd>,
    /// Print the version
    #[arg(long, short = 'v')]
    pub(crate) version: bool,
}

impl Globals {
    /// The folder for the state of containers.
    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(default_root)
    }

    /// Settles, before anything is opened, what later steps would change: what
    /// depends on the caller's user id, and which descriptors are the caller's.
    pub(crate) fn settle(&mut self) {
        self.inherited = host::inherited::list();
        self.root = Some(self.root());
    }
}

fn default_root() -> PathBuf {
    // Who is root in a user namespace alone has no /run.
    let uid = crate::rootless::host_uid();
    if uid == 0 {
        return "/run/sallet".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(run) if !run.is_empty() => PathBuf::from(run).join("sallet"),
        _ => format!("/tmp/sallet-{uid}").into(),
    }
}

fn jail_mode(text: &str) -> Result<JailMode, String> {
    match text {
        "on" => Ok(JailMode::On),
        "noseccomp" => Ok(JailMode::NoSeccomp),
        "off" => Ok(JailMode::Off),
        "probe" => Ok(JailMode::Probe),
        _ => Err("on, noseccomp, off or probe".into()),
    }
}

fn host_uds(text: &str) -> Result<HostUds, String> {
    HostUds::named(text).ok_or_else(|| "none, mounted, open or all".into())
}

fn host_feature(text: &str) -> Result<HostFeature, String> {
    match text {
        "notify-flags" => Ok(HostFeature::NotifyFlags),
        "sealing" => Ok(HostFeature::Sealing),
        "patching" => Ok(HostFeature::Patching),
        "spinning" => Ok(HostFeature::Spinning),
        "parking" => Ok(HostFeature::Parking),
        "parking-trial" => Ok(HostFeature::ParkingTrial),
        "posting" => Ok(HostFeature::Posting),
        "posting-trial" => Ok(HostFeature::PostingTrial),
        _ => {
            Err("notify-flags, sealing, patching, spinning, parking, parking-trial, posting or posting-trial"
                .into())
        }
    }
}

/// Who looks at a guest's memory calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MemoryMode {
    /// The host's filter checks their ranges.
    Native,
    /// The kernel process sees each of them too, at some 10 µs.
    Checked,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container of a bundle
    Create(commands::create::Create),
    /// Run the program of a created container
    Start(commands::start::Start),
    /// Make a container, run its program and wait for it
    Run(commands::run::Run),
    /// Print the state of a container
    State(commands::state::State),
    /// Send a signal to a container's first process
    Kill(commands::kill::Kill),
    /// Remove a container
    Delete(commands::delete::Delete),
    /// Run another program in a container
    Exec(commands::exec::Exec),
    /// List the processes of a container
    Ps(commands::ps::Ps),
    /// List containers
    List(commands::list::List),
    /// Stop all processes of a container for a while
    Pause(commands::pause::Pause),
    /// Let a paused container go on
    Resume(commands::pause::Resume),
    /// Print counters of a container
    Events(commands::events::Events),
    /// Change the limits of a container
    Update(commands::update::Update),
    /// Write a configuration to start from
    Spec(commands::spec::Spec),
    /// Print what this runtime can do, as JSON
    Features(commands::features::Features),
    /// Run a program of this machine in a sandbox, without a bundle
    Do(commands::r#do::Do),
    /// List the system calls that guests can make
    Syscalls(commands::syscalls::Syscalls),
    /// Register with Docker
    Install(commands::install::Install),
    /// Undo install
    Uninstall(commands::install::Uninstall),
    /// Not supported: this runtime cannot save the state of a running container
    #[command(hide = true)]
    Checkpoint(commands::checkpoint::Checkpoint),
    /// Not supported: this runtime cannot bring a saved container back
    #[command(hide = true)]
    Restore(commands::checkpoint::Checkpoint),
    /// Become a kernel process
    #[command(hide = true)]
    Boot(commands::boot::Boot),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, ErrorKind> {
        Cli::read_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn flags_take_values() {
        let debug = |line| read(line).map(|cli| cli.globals.debug);
        assert_eq!(debug("sallet list"), Ok(false));
        assert_eq!(debug("sallet --debug list"), Ok(true));
        assert_eq!(debug("sallet --debug=T list"), Ok(true));
        assert_eq!(debug("sallet --debug=0 list"), Ok(false));
        assert_eq!(debug("sallet --debug --debug=false list -q=false"), Ok(false));
        assert_eq!(debug("sallet --debug=maybe list"), Err(ErrorKind::ValueValidation));
        // The program's own flags are its own.
        let exec = read("sallet exec -dt box program -d=maybe").unwrap();
        assert!(matches!(exec.command, Some(Command::Exec(_))));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        flags_with_values(Cli::command()).debug_assert();
    }
}
