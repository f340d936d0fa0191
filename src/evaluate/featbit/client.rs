//! Answers for client SDKs, which get evaluated flags (FB 7).

use std::io::Write;

use super::evaluation::Outcome;
use super::flag::Flag;
use super::set::DataSet;
use super::sync::Extent;
use super::user::EndUser;
use crate::evaluate::json::write_string;

impl DataSet {
    /// The `data-sync` message that brings a client up to date that has everything up to `since_ms`: full
    /// for 0, else a patch; `None`: there is nothing newer.
    ///
    /// Flags that cannot be evaluated are left out.
    pub fn client(&self, user: &EndUser, since_ms: i64) -> Option<Vec<u8>> {
        let newer = |flag: &&Flag| since_ms == 0 || flag.updated_ms() > since_ms;
        let flags = self.flags.iter().map(|flag| &**flag).filter(newer);
        if since_ms == 0 {
            return Some(self.client_message(user, Extent::Full, flags));
        }
        let mut flags = flags.peekable();
        flags
            .peek()
            .is_some()
            .then(|| self.client_message(user, Extent::Patch, flags))
    }

    /// The patch that tells a client of changes of these flags, which belong to this set.
    pub fn client_patch<'s>(&'s self, user: &EndUser, flags: impl IntoIterator<Item = &'s Flag>) -> Vec<u8> {
        self.client_message(user, Extent::Patch, flags.into_iter())
    }

    fn client_message<'s>(
        &'s self,
        user: &EndUser,
        extent: Extent,
        flags: impl Iterator<Item = &'s Flag>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let opening: &[u8] = match extent {
            Extent::Full => br#"{"messageType":"data-sync","data":{"eventType":"full","userKeyId":"#,
            Extent::Patch => br#"{"messageType":"data-sync","data":{"eventType":"patch","userKeyId":"#,
        };
        out.extend_from_slice(opening);
        write_string(user.key_id(), &mut out);
        out.extend_from_slice(br#","featureFlags":["#);
        for (at, outcome) in self.evaluate_flags(user, flags).outcomes().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_client_flag(outcome, &mut out);
        }
        out.extend_from_slice(b"]}}");
        out
    }
}

fn write_client_flag(outcome: &Outcome<'_>, out: &mut Vec<u8>) {
    let flag = outcome.flag;
    let (id, value) = outcome.variation();
    for part in [
        r#"{"id":"#,
        flag.json(flag.key_json),
        r#","variation":"#,
        value,
        r#","variationType":"#,
        flag.json(flag.type_json),
        r#","variationId":"#,
        id,
        r#","matchReason":"#,
        outcome.reason_json(),
        r#","variationOptions":"#,
        flag.json(flag.options_json),
        if outcome.send {
            r#","sendToExperiment":true"#
        } else {
            r#","sendToExperiment":false"#
        },
        r#","timestamp":"#,
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}}}", flag.updated_ms());
}
