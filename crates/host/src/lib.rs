//! Safe wrappers of host calls that rustix lacks.
