//! `linux.seccomp`: names and words become numbers.

use anyhow::{Result, bail};
use control::{SeccompAction, SeccompCompare, SeccompCondition, SeccompRule, SeccompSpec};
use serde::{Deserialize, Serialize};

/// The object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Seccomp {
    pub(crate) default_action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) architectures: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) listener_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) listener_metadata: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) syscalls: Vec<Syscalls>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Syscalls {
    pub(crate) names: Vec<String>,
    pub(crate) action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<Argument>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Argument {
    pub(crate) index: usize,
    pub(crate) value: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) value_two: u64,
    pub(crate) op: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Resolves a profile. Names of calls that this kernel's numbers do not have
/// are ignored, as by runc.
pub(crate) fn resolve(seccomp: &Seccomp) -> Result<SeccompSpec> {
    let default = action(&seccomp.default_action, seccomp.default_errno_ret)?;
    if !seccomp.listener_path.is_empty() {
        bail!("linux.seccomp.listenerPath is not supported");
    }
    let mut newest = 0;
    let mut rules = Vec::new();
    for syscalls in &seccomp.syscalls {
        let numbers: Vec<u32> = syscalls.names.iter().filter_map(|name| number(name)).collect();
        newest = numbers.iter().copied().fold(newest, u32::max);
        let action = action(&syscalls.action, syscalls.errno_ret)?;
        let conditions = syscalls.args.iter().map(condition).collect::<Result<Vec<_>>>()?;
        // Several conditions on one argument are alternatives, as runc has it.
        let mut indices: Vec<usize> = conditions.iter().map(|c| c.index).collect();
        indices.sort_unstable();
        if indices.windows(2).any(|pair| pair[0] == pair[1]) {
            for one in conditions {
                rules.push(SeccompRule { numbers: numbers.clone(), action, conditions: vec![one] });
            }
        } else {
            rules.push(SeccompRule { numbers, action, conditions });
        }
    }
    Ok(SeccompSpec { default, newest, rules })
}

fn number(name: &str) -> Option<u32> {
    linux_abi::sysno::ALL.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

fn action(word: &str, errno: Option<u32>) -> Result<SeccompAction> {
    const EPERM: u32 = 1;
    let errno = match u16::try_from(errno.unwrap_or(EPERM)) {
        Ok(errno @ 0..=4095) => errno,
        _ => bail!("linux.seccomp: errnoRet {errno:?} is no errno"),
    };
    Ok(match word {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno),
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        // Without a tracer, as none is there when a container starts.
        "SCMP_ACT_TRACE" => SeccompAction::Errno(38),
        "SCMP_ACT_NOTIFY" => bail!(
            "linux.seccomp: SCMP_ACT_NOTIFY is not supported: the host's kernel, whose listener an agent is sent, does \
             not see the container's calls"
        ),
        other => bail!("linux.seccomp: unknown action {other:?}"),
    })
}

fn condition(argument: &Argument) -> Result<SeccompCondition> {
    if argument.index > 5 {
        bail!("linux.seccomp: no call has an argument {}", argument.index);
    }
    let (compare, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (SeccompCompare::Equal, argument.value),
        "SCMP_CMP_NE" => (SeccompCompare::NotEqual, argument.value),
        "SCMP_CMP_LT" => (SeccompCompare::Less, argument.value),
        "SCMP_CMP_LE" => (SeccompCompare::LessOrEqual, argument.value),
        "SCMP_CMP_GT" => (SeccompCompare::Greater, argument.value),
        "SCMP_CMP_GE" => (SeccompCompare::GreaterOrEqual, argument.value),
        "SCMP_CMP_MASKED_EQ" => (SeccompCompare::Masked(argument.value), argument.value_two),
        other => bail!("linux.seccomp: unknown operator {other:?}"),
    };
    Ok(SeccompCondition { index: argument.index, compare, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Seccomp {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn names_become_numbers() {
        let spec = resolve(&profile(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[
                {"names":["read","no_such_call","clone"],"action":"SCMP_ACT_ALLOW"},
                {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[
                    {"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#,
        ))
        .unwrap();
        assert_eq!((spec.default, spec.newest, spec.rules.len()), (SeccompAction::Errno(38), 135, 3));
        assert_eq!(spec.rules[0].numbers, [0, 56]);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for text in [
            r#"{}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"no"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#,
        ] {
            assert!(resolve(&profile(text)).is_err(), "{text}");
        }
    }
}
