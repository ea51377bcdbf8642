//! `sallet features`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::oci::{VERSION, capability};

#[derive(Debug, Args)]
pub(crate) struct Features {}

impl Features {
    #[expect(clippy::unused_self, reason = "commands have one shape")]
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let capabilities: Vec<String> = capability::names().collect();
        let features = json!({
            "ociVersionMin": "1.0.0",
            "ociVersionMax": VERSION,
            "hooks": [
                "prestart", "createRuntime", "createContainer",
                "startContainer", "poststart", "poststop",
            ],
            "mountOptions": [
                "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "noatime",
                "nodev", "nodiratime", "noexec", "norelatime", "nostrictatime", "nosuid",
                "nosymfollow", "private", "rbind", "relatime", "ro", "rprivate", "rro",
                "rshared", "rslave", "rw", "shared", "slave", "strictatime", "suid", "sync",
                "tmpcopyup",
            ],
            "linux": {
                "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
                "capabilities": capabilities,
                "cgroup": {
                    "v1": true, "v2": true, "systemd": false,
                    "systemdUser": false, "rdma": false,
                },
                "seccomp": {"enabled": false},
                "apparmor": {"enabled": false},
                "selinux": {"enabled": false},
                "intelRdt": {"enabled": false},
                "mountExtensions": {"idmap": {"enabled": false}},
            },
            "annotations": {"org.sallet.version": env!("CARGO_PKG_VERSION")},
        });
        println!("{}", serde_json::to_string_pretty(&features)?);
        Ok(ExitCode::SUCCESS)
    }
}
