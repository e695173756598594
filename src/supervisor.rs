//! Supervision of the runs in this process: [`runs`] registers them for the service and for
//! systemd, [`logs`] starts and stops one for each row of a table.

pub(crate) mod logs;
pub(crate) mod runs;
