//! Flags that cannot be evaluated here, told once each.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::evaluate::featbit::Evaluation;

/// Flags that are remembered as told; when there are more, all are forgotten and told again.
const TOLD_MAX: usize = 1024;

/// Which versions of flags were told of.
#[derive(Debug, Default)]
pub struct Unevaluable(Mutex<HashMap<Box<str>, i64>>);

impl Unevaluable {
    /// Logs the flags that `evaluation` left out, each version once.
    pub fn tell(&self, environment: &str, evaluation: &Evaluation<'_>) {
        for left_out in evaluation.unevaluable() {
            let flag = left_out.flag();
            if self.is_new(flag.id(), flag.updated_ms()) {
                tracing::warn!(
                    environment,
                    flag = flag.key(),
                    "this flag cannot be evaluated and is left out of local answers: {}",
                    left_out.cause()
                );
            }
        }
    }

    fn is_new(&self, id: &str, updated_ms: i64) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(id) == Some(&updated_ms) {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(id.into(), updated_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_told_once() {
        let told = Unevaluable::default();
        assert!(told.is_new("a", 1));
        assert!(!told.is_new("a", 1));
        assert!(told.is_new("a", 2) && told.is_new("b", 2));
        for n in 0..TOLD_MAX {
            told.is_new(&n.to_string(), 0);
        }
        assert!(told.is_new("a", 2), "forgotten");
    }
}
