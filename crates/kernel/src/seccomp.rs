//! The container's filter of system calls, as an engine's profile asks for it: seccomp(2).
//!
//! It holds for every process of the sandbox. What the host or the shim would answer by themselves (futex(2), memory
//! calls, getpid(2)) comes here where the profile does not always allow it.

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and told to the log.
    Log,
    /// It fails with this errno.
    Errno(u16),
    /// `SIGSYS` with `SYS_SECCOMP`, with this errno in `si_errno`.
    Trap(u16),
    /// The thread ends as by `SIGSYS`.
    KillThread,
    /// The process does.
    KillProcess,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the operators are")]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & mask == value`
    Masked(u64),
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// 0 to 5.
    pub index: usize,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

impl Condition {
    fn holds(&self, arguments: &[u64; 6]) -> bool {
        let Some(argument) = arguments.get(self.index) else { return false };
        match self.compare {
            Compare::Equal => *argument == self.value,
            Compare::NotEqual => *argument != self.value,
            Compare::Less => *argument < self.value,
            Compare::LessOrEqual => *argument <= self.value,
            Compare::Greater => *argument > self.value,
            Compare::GreaterOrEqual => *argument >= self.value,
            Compare::Masked(mask) => *argument & mask == self.value,
        }
    }
}

/// What a profile says of some calls.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Numbers of calls.
    pub numbers: Vec<u32>,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Then.
    pub action: Action,
}

/// The answer for one number.
#[derive(Clone, Debug)]
enum Verdict {
    Always(Action),
    /// The first whose conditions hold, else the default.
    First(Vec<(Vec<Condition>, Action)>),
}

/// A profile, looked up by number.
#[derive(Clone, Debug)]
pub struct Filter {
    verdicts: Vec<Verdict>,
    default: Action,
}

impl Filter {
    /// `newest` is the greatest number the profile names: calls after it are newer than the profile,
    /// and where its default is an errno they answer `ENOSYS`, so that programs fall back.
    pub fn new(default: Action, newest: u32, rules: &[Rule]) -> Filter {
        let mut verdicts =
            vec![Verdict::Always(default); usize::try_from(newest).map_or(0, |n| n + 1).min(1024)];
        for rule in rules {
            for number in &rule.numbers {
                let Some(verdict) = usize::try_from(*number).ok().and_then(|n| verdicts.get_mut(n)) else {
                    continue;
                };
                let conditions = rule.conditions.clone();
                match verdict {
                    // A rule without conditions beats those with.
                    _ if conditions.is_empty() => *verdict = Verdict::Always(rule.action),
                    Verdict::Always(action) if *action == default => {
                        *verdict = Verdict::First(vec![(conditions, rule.action)]);
                    }
                    Verdict::Always(_) => {}
                    Verdict::First(rules) => rules.push((conditions, rule.action)),
                }
            }
        }
        Filter { verdicts, default }
    }

    /// Whether every call of this number is made, whatever its arguments, and not told to the log.
    pub fn always_allows(&self, number: u32) -> bool {
        let verdict = usize::try_from(number).ok().and_then(|n| self.verdicts.get(n));
        matches!(verdict, Some(Verdict::Always(Action::Allow)))
            || (verdict.is_none() && self.default == Action::Allow)
    }

    /// What becomes of a call.
    pub fn judge(&self, number: u32, arguments: &[u64; 6]) -> Action {
        const ENOSYS: u16 = 38;
        match usize::try_from(number).ok().and_then(|n| self.verdicts.get(n)) {
            Some(Verdict::Always(action)) => *action,
            Some(Verdict::First(rules)) => rules
                .iter()
                .find(|(conditions, _)| conditions.iter().all(|condition| condition.holds(arguments)))
                .map_or(self.default, |(_, action)| *action),
            None if matches!(self.default, Action::Errno(_)) => Action::Errno(ENOSYS),
            None => self.default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_holds_counts() {
        let when = |index, compare, value| vec![Condition { index, compare, value }];
        let filter = Filter::new(
            Action::Errno(1),
            300,
            &[
                Rule { numbers: vec![0, 1], conditions: vec![], action: Action::Allow },
                Rule {
                    numbers: vec![56],
                    conditions: when(0, Compare::Masked(0x7e02_0000), 0),
                    action: Action::Allow,
                },
                Rule { numbers: vec![135], conditions: when(0, Compare::Equal, 0), action: Action::Allow },
                Rule { numbers: vec![135], conditions: when(0, Compare::Equal, 8), action: Action::Allow },
                Rule { numbers: vec![2], conditions: when(1, Compare::Less, 5), action: Action::Log },
                Rule { numbers: vec![2], conditions: vec![], action: Action::KillThread },
            ],
        );
        let first = |number, argument| filter.judge(number, &[argument, 0, 0, 0, 0, 0]);
        assert_eq!(first(0, 5), Action::Allow);
        assert_eq!(first(3, 5), Action::Errno(1));
        assert_eq!(first(56, 0x1200_0011 & !0x7e02_0000), Action::Allow);
        assert_eq!(first(56, 0x1000_0000), Action::Errno(1));
        assert_eq!((first(135, 8), first(135, 9)), (Action::Allow, Action::Errno(1)));
        assert_eq!(first(2, 0), Action::KillThread);
        assert_eq!(first(301, 0), Action::Errno(38));
        assert_eq!(first(u32::MAX, 0), Action::Errno(38));
    }
}
