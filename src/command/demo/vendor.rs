//! The seam between the tours: what one vendor brings, and nothing else of the tour names one.
//!
//! A vendor has a form of questions, example flags, an engine that computes them, a way to hand them out, and words
//! of its own. The story, the built-in upstream's moods and the proxy in front of it are the same for all.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;

use crate::api::Proxy;
use crate::command::evaluate::Engine;

use super::client::{Person, Spelling};
use super::{amplitude, featbit};

/// One of the vendors.
pub(super) trait Vendor: fmt::Debug + Send + Sync {
    /// How people call it.
    fn product(&self) -> &'static str;

    /// The key that its built-in upstream knows.
    fn key(&self) -> &'static str;

    /// The option that takes its upstream.
    fn option(&self) -> &'static str;

    /// Settings that make it quick, as `path=value`.
    fn settings(&self) -> &'static [&'static str];

    /// The request for all flags of `person`, as it goes over the wire.
    fn request(&self, person: &Person, spelling: Spelling, key: &str) -> String;

    /// What [`Spelling::Permuted`] and [`Spelling::Compact`] are, in at most 36 columns.
    fn spellings(&self) -> [(&'static str, Spelling); 2];

    /// Whether requests on this path are questions about users; others fetch flags.
    fn is_question(&self, path: &str) -> bool;

    /// The variants in an answer, as `flag=variant`.
    fn variants(&self, body: &[u8]) -> Vec<String>;

    /// The flag that changes.
    fn changing(&self) -> &'static str;

    /// The flags as they are at first.
    ///
    /// # Errors
    /// When the example was edited and is broken.
    fn example(&self) -> io::Result<Box<dyn Flags>>;

    /// Number of the flags that the proxy has fetched; none before it has.
    fn revision(&self, proxy: &Proxy) -> Option<u64>;

    /// Arguments that put flagside in front of the real thing.
    fn run_arguments(&self) -> &'static str;

    /// Where the example flags are in a source tree.
    fn flags_file(&self) -> &'static str;

    /// Arguments of this tour.
    fn demo_arguments(&self) -> &'static str;

    /// A question to try with curl, line by line.
    fn curl(&self, proxy: SocketAddr) -> Vec<String>;
}

/// Flags as the upstream has them; they do not change, they are replaced.
pub(super) trait Flags: fmt::Debug + Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// These flags with [`Vendor::changing`] open to the free plan, or closed to it again; and what was done.
    ///
    /// # Errors
    /// When the example was edited and is broken.
    fn changed(&self) -> io::Result<(Box<dyn Flags>, String)>;

    /// The answer about a person.
    fn verdict(&self, person: &Person) -> Option<Vec<u8>>;

    /// What the upstream answers to a request.
    fn answer(&self, heard: &Heard<'_>) -> Response<Full<Bytes>>;
}

/// A request that the built-in upstream heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard<'r> {
    pub(super) method: &'r Method,
    pub(super) path: &'r str,
    pub(super) query: Option<&'r str>,
    pub(super) headers: &'r HeaderMap,
    pub(super) body: &'r Bytes,
}

/// The vendor of an engine.
pub(super) const fn of(engine: Engine) -> &'static dyn Vendor {
    match engine {
        Engine::Amplitude => &amplitude::Amplitude,
        Engine::FeatBit => &featbit::Featbit,
    }
}

/// Adds the free plan to a list of plans, or takes it away. Says which.
pub(super) fn toggle_free_plan(plans: &mut Vec<serde_json::Value>) -> &'static str {
    match plans.iter().position(|plan| plan == "free") {
        Some(free) => {
            plans.remove(free);
            "closed to the free plan"
        }
        None => {
            plans.push("free".into());
            "opened to the free plan"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Person {
        Person::named("ada", "Web", "4.1.9", "free")
    }

    #[test]
    fn spellings_differ_and_mean_the_same() {
        for vendor in Engine::ALL.map(of) {
            let flags = vendor.example().unwrap();
            let [one, other] = vendor.spellings();
            let spellings = [Spelling::Usual, one.1, other.1];
            let requests = spellings.map(|spelling| vendor.request(&ada(), spelling, vendor.key()));
            assert!(
                requests[0] != requests[1] && requests[1] != requests[2] && requests[0] != requests[2],
                "{vendor:?}"
            );
            for (what, _) in vendor.spellings() {
                assert!(what.len() <= 36, "{what}");
            }
            assert!(flags.verdict(&ada()).is_some());
        }
    }

    #[test]
    fn the_change_changes_what_it_says_and_can_be_undone() {
        for vendor in Engine::ALL.map(of) {
            let shows = |flags: &dyn Flags| {
                let variants = vendor.variants(&flags.verdict(&ada()).unwrap());
                let is_changing = |variant: &String| variant.starts_with(vendor.changing());
                variants.into_iter().find(is_changing).unwrap()
            };
            let before = vendor.example().unwrap();
            let (opened, said) = before.changed().unwrap();
            assert!(
                said.contains(vendor.changing()) && said.contains("opened"),
                "{said}"
            );
            let (closed, said) = opened.changed().unwrap();
            assert!(said.contains("closed"), "{said}");
            assert_ne!(shows(&*before), shows(&*opened), "{vendor:?}");
            assert_eq!(shows(&*before), shows(&*closed), "{vendor:?}");
            assert_eq!(
                vendor.variants(&before.verdict(&ada()).unwrap()).len(),
                before.len()
            );
        }
    }
}
