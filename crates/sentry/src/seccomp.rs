//! The profile of a container as the kernel's filter.

use std::sync::Arc;

use control::{SeccompAction, SeccompCompare, SeccompSpec};
use kernel::seccomp::{Action, Compare, Condition, Filter, Rule};

/// Looks everything up once.
pub(crate) fn compile(spec: &SeccompSpec) -> Arc<Filter> {
    let rules: Vec<Rule> = spec
        .rules
        .iter()
        .map(|rule| Rule {
            numbers: rule.numbers.clone(),
            action: action(rule.action),
            conditions: rule
                .conditions
                .iter()
                .map(|c| Condition { index: c.index, compare: compare(c.compare), value: c.value })
                .collect(),
        })
        .collect();
    Arc::new(Filter::new(action(spec.default), spec.newest, &rules))
}

fn action(action: SeccompAction) -> Action {
    match action {
        SeccompAction::Allow => Action::Allow,
        SeccompAction::Log => Action::Log,
        SeccompAction::Errno(errno) => Action::Errno(errno),
        SeccompAction::Trap => Action::Trap(0),
        SeccompAction::KillThread => Action::KillThread,
        SeccompAction::KillProcess => Action::KillProcess,
    }
}

fn compare(compare: SeccompCompare) -> Compare {
    match compare {
        SeccompCompare::Equal => Compare::Equal,
        SeccompCompare::NotEqual => Compare::NotEqual,
        SeccompCompare::Less => Compare::Less,
        SeccompCompare::LessOrEqual => Compare::LessOrEqual,
        SeccompCompare::Greater => Compare::Greater,
        SeccompCompare::GreaterOrEqual => Compare::GreaterOrEqual,
        SeccompCompare::Masked(mask) => Compare::Masked(mask),
    }
}
