//! Pages of a list: their size, and the token of where the next one begins.

use tonic::Status;

use super::wire::invalid;

const DEFAULT_SIZE: u32 = 50;
const MAX_SIZE: u32 = 500;

/// How many rows a page holds.
///
/// # Errors
/// The size asked for is out of range.
pub fn size(asked: u32) -> Result<u32, Status> {
    match asked {
        0 => Ok(DEFAULT_SIZE),
        1..=MAX_SIZE => Ok(asked),
        _ => Err(invalid("page_size", format!("{asked}; at most {MAX_SIZE}"))),
    }
}

/// The position that a token stands for; without one, the beginning of a list that counts down.
///
/// # Errors
/// The token is not one of ours.
pub fn position(token: &str) -> Result<i64, Status> {
    if token.is_empty() {
        return Ok(i64::MAX);
    }
    let parsed = token
        .strip_prefix("b-")
        .and_then(|hex| i64::from_str_radix(hex, 16).ok());
    parsed.ok_or_else(|| invalid("page_token", "not a token that a former page came with"))
}

pub fn token(position: i64) -> String {
    format!("b-{position:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        assert_eq!(position(&token(77)).unwrap(), 77);
        assert_eq!(position("").unwrap(), i64::MAX);
        for bad in ["77", "b-", "b-xyz", "b-ffffffffffffffffff"] {
            assert!(position(bad).is_err(), "{bad}");
        }
        assert_eq!(size(0).unwrap(), 50);
        assert!(size(501).is_err());
    }
}
