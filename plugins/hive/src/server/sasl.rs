//! The login with SASL's PLAIN mechanism (RFC 4616).

use std::io::{Read, Write};

use thrift::Error;

use super::UNSUPPORTED;

/// The status of a login message.
mod status {
    pub(super) const START: u8 = 1;
    pub(super) const OK: u8 = 2;
    pub(super) const BAD: u8 = 3;
    pub(super) const ERROR: u8 = 4;
    pub(super) const COMPLETE: u8 = 5;
}

/// A longer message is not part of a login. In bytes.
const MAX_LOGIN_MESSAGE: u32 = 1 << 16;

/// Logs in. Thrift's login messages are a status, a length of 4 bytes and the content. After the
/// login, every message is preceded by its length.
pub(super) fn log_in(
    connection: &mut (impl Read + Write),
    user: &str,
    password: &str,
) -> thrift::Result<()> {
    let mut message = Vec::new();
    for (status, content) in [
        (status::START, "PLAIN"),
        (status::COMPLETE, &format!("\0{user}\0{password}")),
    ] {
        message.push(status);
        message.extend(
            u32::try_from(content.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        message.extend(content.as_bytes());
    }
    connection.write_all(&message)?;
    connection.flush()?;
    loop {
        let mut header = [0; 5];
        connection.read_exact(&mut header)?;
        let [status, length @ ..] = header;
        let length = u32::from_be_bytes(length);
        if !matches!(
            status,
            status::OK | status::BAD | status::ERROR | status::COMPLETE
        ) || length > MAX_LOGIN_MESSAGE
        {
            return Err(Error::User(
                format!("unexpected response to the login; {UNSUPPORTED}").into(),
            ));
        }
        let mut content = vec![0; length as usize];
        connection.read_exact(&mut content)?;
        match status {
            status::COMPLETE => return Ok(()),
            status::OK => {}
            _ => {
                return Err(Error::User(
                    format!(
                        "login of {user} refused: {}",
                        String::from_utf8_lossy(&content)
                    )
                    .into(),
                ));
            }
        }
    }
}
