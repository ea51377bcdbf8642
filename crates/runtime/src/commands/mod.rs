//! One file per command.

pub(crate) mod boot;
pub(crate) mod checkpoint;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod r#do;
mod do_limits;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod install;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod syscalls;
pub(crate) mod update;
