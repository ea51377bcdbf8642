//! What a configuration asks for and this runtime does not give: refused by
//! name where the program would notice, else told to the log.

use anyhow::{Result, bail};

use super::config::{Config, Linux, Process};
use super::{mounts, seccomp, translate};

/// Fails on what cannot be left out without changing what the container is.
pub(crate) fn refuse(config: &Config) -> Result<()> {
    if let Some(process) = &config.process {
        refuse_process(process)?;
    }
    for mount in &config.mounts {
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            bail!("mount of {}: id-mapped mounts are not supported", mount.destination);
        }
    }
    match &config.linux {
        Some(linux) => refuse_linux(linux),
        None => Ok(()),
    }
}

/// The same for a `process` object of its own.
pub(crate) fn refuse_process(process: &Process) -> Result<()> {
    if process.exec_cpu_affinity.is_some() {
        bail!("process.execCPUAffinity is not supported");
    }
    Ok(())
}

fn refuse_linux(linux: &Linux) -> Result<()> {
    for namespace in &linux.namespaces {
        match (namespace.kind.as_str(), namespace.path.is_empty()) {
            ("pid" | "mount" | "ipc" | "uts" | "user" | "cgroup" | "network", true) | ("network", false) => {}
            ("time", _) => bail!("linux.namespaces: the time namespace is not supported"),
            (kind @ ("pid" | "mount" | "ipc" | "uts" | "user" | "cgroup"), false) => {
                bail!("linux.namespaces: joining a {kind} namespace by path is not supported")
            }
            (other, _) => bail!("invalid namespace type {other:?}"),
        }
    }
    let mut kinds: Vec<&str> = linux.namespaces.iter().map(|n| n.kind.as_str()).collect();
    kinds.sort_unstable();
    if let Some(pair) = kinds.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("malformed spec file: duplicated ns {:?}", pair[0]);
    }
    if linux.intel_rdt.is_some() {
        bail!("linux.intelRdt is not supported");
    }
    if !linux.net_devices.is_empty() {
        bail!("linux.netDevices is not supported");
    }
    if !linux.time_offsets.is_empty() {
        bail!("linux.timeOffsets is not supported");
    }
    if let Some(personality) = &linux.personality {
        if personality.domain != "LINUX" {
            bail!("linux.personality.domain {:?} is not supported", personality.domain);
        }
        if !personality.flags.is_empty() {
            bail!("linux.personality.flags is not supported");
        }
    }
    if !matches!(
        linux.rootfs_propagation.as_str(),
        "" | "private"
            | "rprivate"
            | "slave"
            | "rslave"
            | "shared"
            | "rshared"
            | "unbindable"
            | "runbindable"
    ) {
        bail!("invalid linux.rootfsPropagation {:?}", linux.rootfs_propagation);
    }
    if linux.resources.as_ref().is_some_and(|resources| !resources.rdma.is_empty()) {
        bail!("linux.resources.rdma is not supported");
    }
    if let Some(seccomp) = &linux.seccomp {
        seccomp::resolve(seccomp)?;
    }
    linux.sysctl.keys().try_for_each(|name| refuse_sysctl(name))
}

/// A value of the whole machine is not a container's to set.
fn refuse_sysctl(name: &str) -> Result<()> {
    const IPC: [&str; 7] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni"];
    if name == "kernel.hostname" {
        bail!("sysctl \"kernel.hostname\" conflicts with the hostname field");
    }
    if name == "kernel.shm_rmid_forced" {
        bail!("sysctl \"kernel.shm_rmid_forced\" is not supported");
    }
    let ours = name.starts_with("net.")
        || name.starts_with("fs.mqueue.")
        || name == "kernel.domainname"
        || name.strip_prefix("kernel.").is_some_and(|rest| IPC.contains(&rest));
    if !ours {
        bail!("sysctl \"{name}\" is not in a separate kernel namespace");
    }
    let clean = name.split('.').all(|part| !part.is_empty()) && !name.contains(['/', '\0', '\n']);
    if !clean {
        bail!("sysctl {name:?} is no name");
    }
    Ok(())
}

/// What is left out without harm, each in a sentence for the log: engines ask
/// for most of these on every container. With it whether users should see it.
pub(crate) fn left_out(config: &Config) -> Vec<(bool, String)> {
    let mut notes: Vec<(bool, String)> =
        config.unknown.iter().map(|field| (false, format!("{field} is not known and ignored"))).collect();
    let mut note = |there: bool, text: &str| {
        if there {
            notes.push((false, text.to_owned()));
        }
    };
    for mount in &config.mounts {
        let words = mounts::parse(mount).map(|parsed| parsed.left_out.join(", ")).unwrap_or_default();
        let text = format!("mount of {}: options without effect here: {words}", mount.destination);
        note(!words.is_empty(), &text);
    }
    if let Some(linux) = &config.linux {
        if let Some(seccomp) = &linux.seccomp {
            // This kernel answers x86-64 calls only, and speculation is the host's affair.
            note(!seccomp.flags.is_empty(), "linux.seccomp.flags are ignored");
        }
        note(!linux.mount_label.is_empty(), "linux.mountLabel is accepted and not applied");
        note(
            !linux.rootfs_propagation.is_empty(),
            "linux.rootfsPropagation: no mount of a guest is seen outside, nor the other way",
        );
        if let Some(resources) = &linux.resources {
            let memory = resources.memory.unwrap_or_default();
            note(
                !resources.devices.is_empty(),
                "linux.resources.devices: guests have no devices of the host, whatever is allowed",
            );
            note(
                memory.kernel.is_some() || memory.kernel_tcp.is_some(),
                "linux.resources.memory: limits of kernel memory alone are deprecated and ignored",
            );
            note(
                memory.use_hierarchy.is_some() || memory.check_before_update.is_some(),
                "linux.resources.memory: useHierarchy and checkBeforeUpdate are ignored",
            );
            let leaf = resources.block_io.as_ref().is_some_and(|io| {
                io.leaf_weight.is_some() || io.weight_device.iter().any(|device| device.leaf_weight.is_some())
            });
            note(leaf, "linux.resources.blockIO.leafWeight is ignored");
        }
    }
    notes.extend(config.process.iter().flat_map(left_out_of));
    notes
}

/// The same of a `process` object.
pub(crate) fn left_out_of(process: &Process) -> Vec<(bool, String)> {
    let mut notes = Vec::new();
    for (there, field) in [
        (process.apparmor_profile.is_some(), "process.apparmorProfile"),
        (process.selinux_label.is_some(), "process.selinuxLabel"),
    ] {
        if there {
            notes.push((false, format!("{field} is accepted and not applied")));
        }
    }
    let unknown = translate::unknown_capabilities(process);
    if !unknown.is_empty() {
        notes.push((true, format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "))));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each field of the specification that a runtime on Linux meets, with a
    /// value that asks for something, and what becomes of it.
    const FIELDS: &[(&str, &str, Fate)] = &[
        ("/process/terminal", "true", Honoured),
        ("/process/consoleSize", r#"{"height":2,"width":3}"#, Honoured),
        ("/process/user/uid", "1", Honoured),
        ("/process/user/gid", "1", Honoured),
        ("/process/user/umask", "18", Honoured),
        ("/process/user/additionalGids", "[5]", Honoured),
        ("/process/user/username", r#""x""#, Told),
        ("/process/args", r#"["x"]"#, Honoured),
        ("/process/commandLine", r#""x""#, Told),
        ("/process/env", r#"["A=b"]"#, Honoured),
        ("/process/cwd", r#""/""#, Honoured),
        ("/process/capabilities", r#"{"bounding":["CAP_KILL"]}"#, Honoured),
        ("/process/capabilities", r#"{"bounding":["CAP_NEW"]}"#, Told),
        ("/process/rlimits", r#"[{"type":"RLIMIT_CORE","soft":1,"hard":1}]"#, Honoured),
        ("/process/rlimits", r#"[{"type":"RLIMIT_X","soft":1,"hard":1}]"#, Refused),
        ("/process/noNewPrivileges", "true", Honoured),
        ("/process/apparmorProfile", r#""x""#, Told),
        ("/process/selinuxLabel", r#""x""#, Told),
        ("/process/oomScoreAdj", "5", Honoured),
        ("/process/scheduler", r#"{"policy":"SCHED_BATCH","nice":3}"#, Honoured),
        ("/process/scheduler", r#"{"policy":"SCHED_FIFO","priority":3}"#, Refused),
        ("/process/scheduler", r#"{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_RECLAIM"]}"#, Refused),
        ("/process/scheduler", r#"{"policy":"SCHED_OTHER","deadline":5}"#, Refused),
        ("/process/ioPriority", r#"{"class":"IOPRIO_CLASS_BE","priority":4}"#, Honoured),
        ("/process/execCPUAffinity", r#"{"initial":"0"}"#, Refused),
        ("/root/readonly", "true", Honoured),
        ("/hostname", r#""x""#, Honoured),
        ("/domainname", r#""x""#, Honoured),
        ("/mounts", r#"[{"destination":"/x","type":"tmpfs","source":"x","options":["size=1m"]}]"#, Honoured),
        ("/mounts", r#"[{"destination":"/x","type":"tmpfs","options":["tmpcopyup","rshared"]}]"#, Honoured),
        (
            "/mounts",
            r#"[{"destination":"/x","type":"bind","source":"/","options":["rro","rslave"]}]"#,
            Honoured,
        ),
        ("/mounts", r#"[{"destination":"/x","type":"bind","source":"/","options":["sync"]}]"#, Told),
        ("/mounts", r#"[{"destination":"/x","type":"proc","options":["hidepid=2"]}]"#, Honoured),
        ("/mounts", r#"[{"destination":"/x","type":"nfs"}]"#, Refused),
        ("/mounts", r#"[{"destination":"/x","type":"bind","source":"/","options":["idmap"]}]"#, Refused),
        (
            "/mounts",
            r#"[{"destination":"/x","type":"bind","source":"/","uidMappings":[{"containerID":0,"hostID":1,"size":1}]}]"#,
            Refused,
        ),
        (
            "/mounts",
            r#"[{"destination":"/x","type":"bind","source":"/","gidMappings":[{"containerID":0,"hostID":1,"size":1}]}]"#,
            Refused,
        ),
        ("/hooks/prestart", r#"[{"path":"/bin/true"}]"#, Honoured),
        ("/hooks/createRuntime", r#"[{"path":"/bin/true"}]"#, Honoured),
        ("/hooks/createContainer", r#"[{"path":"/bin/true"}]"#, Honoured),
        ("/hooks/startContainer", r#"[{"path":"/bin/true"}]"#, Honoured),
        ("/hooks/poststart", r#"[{"path":"/bin/true"}]"#, Honoured),
        ("/hooks/poststop", r#"[{"path":"/bin/true"}]"#, Honoured),
        ("/hooks/later", r#"[{"path":"/bin/true"}]"#, Told),
        ("/annotations", r#"{"a":"b"}"#, Honoured),
        ("/linux/uidMappings", r#"[{"containerID":0,"hostID":1,"size":1}]"#, Honoured),
        ("/linux/gidMappings", r#"[{"containerID":0,"hostID":1,"size":1}]"#, Honoured),
        ("/linux/sysctl", r#"{"net.ipv4.ip_forward":"1"}"#, Honoured),
        ("/linux/sysctl", r#"{"vm.swappiness":"1"}"#, Refused),
        ("/linux/sysctl", r#"{"kernel.hostname":"x"}"#, Refused),
        ("/linux/sysctl", r#"{"net.../../../x":"1"}"#, Refused),
        ("/linux/resources/devices", r#"[{"allow":true,"access":"rwm"}]"#, Told),
        ("/linux/resources/memory", r#"{"limit":1,"reservation":1,"swap":1,"swappiness":1}"#, Honoured),
        ("/linux/resources/memory", r#"{"disableOOMKiller":true}"#, Honoured),
        ("/linux/resources/memory", r#"{"kernel":1}"#, Told),
        ("/linux/resources/memory", r#"{"kernelTCP":1}"#, Told),
        ("/linux/resources/memory", r#"{"useHierarchy":true}"#, Told),
        ("/linux/resources/memory", r#"{"checkBeforeUpdate":true}"#, Told),
        ("/linux/resources/cpu", r#"{"shares":1,"quota":1,"period":1,"burst":1,"idle":1}"#, Honoured),
        ("/linux/resources/cpu", r#"{"realtimeRuntime":1,"realtimePeriod":1}"#, Honoured),
        ("/linux/resources/cpu", r#"{"cpus":"0","mems":"0"}"#, Honoured),
        ("/linux/resources/pids", r#"{"limit":5}"#, Honoured),
        ("/linux/resources/blockIO", r#"{"weight":10}"#, Honoured),
        ("/linux/resources/blockIO", r#"{"leafWeight":10}"#, Told),
        ("/linux/resources/blockIO", r#"{"weightDevice":[{"major":8,"minor":0,"weight":10}]}"#, Honoured),
        ("/linux/resources/blockIO", r#"{"weightDevice":[{"major":8,"minor":0,"leafWeight":1}]}"#, Told),
        (
            "/linux/resources/blockIO",
            r#"{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleWriteBpsDevice":[],
                "throttleReadIOPSDevice":[],"throttleWriteIOPSDevice":[]}"#,
            Honoured,
        ),
        ("/linux/resources/hugepageLimits", r#"[{"pageSize":"2MB","limit":1}]"#, Honoured),
        ("/linux/resources/network", r#"{"classID":1,"priorities":[{"name":"lo","priority":1}]}"#, Honoured),
        ("/linux/resources/rdma", r#"{"x":{"hcaHandles":1}}"#, Refused),
        ("/linux/resources/unified", r#"{"memory.high":"1"}"#, Honoured),
        ("/linux/cgroupsPath", r#""/x""#, Honoured),
        ("/linux/namespaces", r#"[{"type":"pid"}]"#, Honoured),
        ("/linux/namespaces", r#"[{"type":"pid","path":"/x"}]"#, Refused),
        ("/linux/namespaces", r#"[{"type":"time"}]"#, Refused),
        ("/linux/devices", r#"[{"path":"/dev/x","type":"c","major":1,"minor":3}]"#, Honoured),
        ("/linux/devices", r#"[{"path":"/dev/x","type":"z","major":1,"minor":3}]"#, Refused),
        ("/linux/netDevices", r#"{"eth0":{}}"#, Refused),
        ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["x"]}"#, Honoured),
        ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}"#, Honoured),
        ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["x"]}"#, Told),
        ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, Refused),
        ("/linux/rootfsPropagation", r#""slave""#, Told),
        ("/linux/rootfsPropagation", r#""sideways""#, Refused),
        ("/linux/maskedPaths", r#"["/x"]"#, Honoured),
        ("/linux/readonlyPaths", r#"["/x"]"#, Honoured),
        ("/linux/mountLabel", r#""x""#, Told),
        ("/linux/intelRdt", r#"{"closID":"x"}"#, Refused),
        ("/linux/memoryPolicy", r#"{"mode":"MPOL_BIND","nodes":"0"}"#, Honoured),
        ("/linux/memoryPolicy", r#"{"mode":"BIND"}"#, Refused),
        ("/linux/personality", r#"{"domain":"LINUX"}"#, Honoured),
        ("/linux/personality", r#"{"domain":"LINUX32"}"#, Refused),
        ("/linux/personality", r#"{"domain":"LINUX","flags":["x"]}"#, Refused),
        ("/linux/timeOffsets", r#"{"monotonic":{"secs":1}}"#, Refused),
        ("/windows", r#"{"layerFolders":[]}"#, Told),
        ("/vm", r#"{"kernel":{"path":"/x"}}"#, Told),
        ("/solaris", r#"{"milestone":"x"}"#, Told),
    ];

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fate {
        Honoured,
        /// In a sentence of the log.
        Told,
        Refused,
    }
    use Fate::{Honoured, Refused, Told};

    /// A configuration that asks for nothing but this.
    fn with(pointer: &str, value: &str) -> Config {
        let mut all = serde_json::json!({
            "ociVersion": "1.0.0",
            "process": {"args": ["true"], "cwd": "/", "user": {}},
            "root": {"path": "rootfs"},
            "hooks": {},
            "linux": {"resources": {}},
        });
        let mut at = &mut all;
        for name in pointer.split('/').skip(1) {
            at = at.as_object_mut().unwrap().entry(name).or_insert(serde_json::json!({}));
        }
        *at = serde_json::from_str(value).unwrap();
        let folder = std::env::temp_dir().join(format!("sallet-fields-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), all.to_string()).unwrap();
        let config = Config::load(&folder).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        config
    }

    fn fate(config: &Config) -> Fate {
        let linux = config.linux.clone().unwrap_or_default();
        let checks = [
            refuse(config),
            config.process.as_ref().map_or(Ok(()), |process| translate::process(process).map(drop)),
            config.mounts.iter().try_for_each(|mount| mounts::parse(mount).map(drop)),
            translate::devices(&linux).map(drop),
            linux.memory_policy.as_ref().map_or(Ok(()), |policy| translate::memory_policy(policy).map(drop)),
        ];
        if checks.iter().any(Result::is_err) {
            Refused
        } else if left_out(config).is_empty() {
            Honoured
        } else {
            Told
        }
    }

    #[test]
    fn no_field_is_dropped_in_silence() {
        for (pointer, value, wanted) in FIELDS {
            let config = with(pointer, value);
            assert_eq!(fate(&config), *wanted, "{pointer} {value}");
            // What counts as honoured must at least have been read.
            if *wanted == Honoured {
                let read = serde_json::to_value(&config).unwrap();
                assert!(read.pointer(pointer).is_some(), "{pointer} is not read");
            }
        }
    }
}
