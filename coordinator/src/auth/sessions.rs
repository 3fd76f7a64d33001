//! Browsers that have logged in: a random id in a cookie stands for the token that was given once. Kept in memory; after a
//! restart people log in again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use klp_identity::token::Hashed;
use klp_identity::{Kind, Token, TokenId};

use crate::lifecycle::Millis;

/// How long a browser stays logged in, in milliseconds.
pub const LIFE: Millis = 12 * 3_600_000;
/// Sessions at a time; beyond, the oldest ends.
const MAX: usize = 10_000;

/// What a session's cookie stands for.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub token: TokenId,
    until: Millis,
    hash: Hashed,
}

/// A session's id has the form of a token: random, looked up by one part and compared by the other.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<TokenId, Session>>);

impl Sessions {
    /// Begins a session; answers what its cookie holds.
    ///
    /// # Errors
    /// The machine gives no random bits.
    pub fn begin(&self, token: TokenId, now: Millis) -> Result<String, klp_identity::Problem> {
        let id = Token::new(Kind::Access)?;
        let session = Session {
            token,
            until: now + LIFE,
            hash: id.hashed(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| session.until > now);
        if all.len() >= MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, session)| session.until).map(|(id, _)| *id)
        {
            all.remove(&oldest);
        }
        all.insert(id.id, session);
        Ok(id.reveal())
    }

    pub fn find(&self, cookie: &str, now: Millis) -> Option<Session> {
        let id: Token = cookie.parse().ok()?;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get(&id.id).copied()?;
        (session.until > now && session.hash.is_of(&id)).then_some(session)
    }

    pub fn end(&self, cookie: &str) {
        if let Ok(id) = cookie.parse::<Token>() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_after_its_time_or_when_it_is_ended() {
        let sessions = Sessions::default();
        let token = Token::new(Kind::Access).unwrap();
        let (one, other) = (
            sessions.begin(token.id, 0).unwrap(),
            sessions.begin(token.id, 5).unwrap(),
        );
        assert_eq!(sessions.find(&one, LIFE - 1).unwrap().token, token.id);
        assert!(sessions.find(&one, LIFE).is_none() && sessions.find(&token.reveal(), 1).is_none());
        // An id alone, with another secret, is nobody's.
        assert!(sessions.find(&format!("{}{}", &one[..22], &other[22..]), 1).is_none());
        sessions.end(&other);
        assert!(sessions.find(&other, 6).is_none());
    }
}
