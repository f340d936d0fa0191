//! `AdmissionReview` v1: a request in, an answer out (OPS 5).
//!
//! A pod is always allowed; what goes wrong with one becomes a warning and a count. Only what is no review at all
//! is refused.

use serde_json::{Value, json};

use super::edit::{Path, json_patch};
use super::pod::{Pod, Verdict, plan};
use super::skip::Skip;
use super::template::Template;

/// Bytes of one warning.
const WARNING_MAX: usize = 256;

/// How an admission ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// With the sidecar.
    Injected,
    /// Without, for this reason.
    Skipped(Skip),
    /// Without, because of what was sent.
    Failed(Failure),
}

/// What was wrong with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// It is no `AdmissionReview` v1.
    Malformed,
    /// It is larger than 3 MiB.
    TooLarge,
    /// It is not about a new pod, or the pod has no shape of one.
    NotAPod,
}

impl Admission {
    /// Every way, in the order of [`Self::index`].
    pub const ALL: [Self; 11] = [
        Self::Injected,
        Self::Skipped(Skip::Disabled),
        Self::Skipped(Skip::AlreadyInjected),
        Self::Skipped(Skip::HostNetwork),
        Self::Skipped(Skip::Windows),
        Self::Skipped(Skip::PortConflict),
        Self::Skipped(Skip::BadAnnotation),
        Self::Skipped(Skip::ExcludedNamespace),
        Self::Failed(Failure::Malformed),
        Self::Failed(Failure::TooLarge),
        Self::Failed(Failure::NotAPod),
    ];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        Self::ALL
            .iter()
            .position(|other| *other == self)
            .unwrap_or_default()
    }

    /// The labels `result` and `reason`.
    #[must_use]
    pub const fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Injected => ["injected", "none"],
            Self::Skipped(skip) => ["skipped", skip.as_str()],
            Self::Failed(Failure::Malformed) => ["failed", "malformed"],
            Self::Failed(Failure::TooLarge) => ["failed", "too_large"],
            Self::Failed(Failure::NotAPod) => ["failed", "not_a_pod"],
        }
    }
}

/// The request is no `AdmissionReview` v1; what is missing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an AdmissionReview of admission.k8s.io/v1: {0}")]
pub struct Malformed(&'static str);

/// An answer and how the admission ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The `AdmissionReview` with the response.
    pub review: Value,
    /// How the admission ended.
    pub admission: Admission,
    /// Why, for the log, unless the pod has the sidecar.
    pub why: Option<String>,
}

/// Answers a review.
///
/// # Errors
///
/// When `body` is none.
pub fn answer(body: &[u8], template: &Template, excluded: &[String]) -> Result<Answer, Malformed> {
    let review: Value = serde_json::from_slice(body).map_err(|_| Malformed("not JSON"))?;
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != "admission.k8s.io/v1" {
        return Err(Malformed("another kind or version"));
    }
    let request = &review["request"];
    let uid = request["uid"].as_str().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or(Malformed("no request.uid"))?;
    let (admission, why, warnings, patch) = decide(request, template, excluded);
    let mut response = json!({"uid": uid, "allowed": true});
    if let Some(patch) = patch {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(base64(patch.to_string().as_bytes()));
    }
    if !warnings.is_empty() {
        let warnings: Vec<&str> = warnings.iter().map(|warning| shortened(warning)).collect();
        response["warnings"] = json!(warnings);
    }
    let review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(Answer {
        review,
        admission,
        why,
    })
}

type Decision = (Admission, Option<String>, Vec<String>, Option<Value>);

fn decide(request: &Value, template: &Template, excluded: &[String]) -> Decision {
    let not_a_pod = |why: String| {
        let warning = format!("no flagside sidecar: {why}");
        (
            Admission::Failed(Failure::NotAPod),
            Some(why),
            vec![warning],
            None,
        )
    };
    let resource = &request["resource"];
    let is_pod = resource["group"].as_str().unwrap_or_default().is_empty() && resource["resource"] == "pods";
    let is_whole = request["subResource"].as_str().unwrap_or_default().is_empty();
    if !is_pod || !is_whole || request["operation"] != "CREATE" {
        return not_a_pod("the webhook was asked about something that is not a new pod".to_owned());
    }
    let pod = Pod {
        root: &request["object"],
        at: &Path::default(),
        namespace: request["namespace"].as_str().filter(|name| !name.is_empty()),
        ends: is_of_job(&request["object"]),
    };
    match plan(template, &pod, excluded) {
        Err(unfit) => not_a_pod(unfit.to_string()),
        Ok(plan) => match plan.verdict {
            Verdict::Inject(edits) => (Admission::Injected, None, plan.warnings, Some(json_patch(&edits))),
            Verdict::Skip(skip, why) => (Admission::Skipped(skip), Some(why), plan.warnings, None),
        },
    }
}

fn is_of_job(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "Job"))
}

fn shortened(warning: &str) -> &str {
    let mut end = warning.len().min(WARNING_MAX);
    while !warning.is_char_boundary(end) {
        end -= 1;
    }
    &warning[..end]
}

/// Base64, standard alphabet, padded (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= group.len() {
                out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::base64;

    fn review(pod: &Value) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "operation": "CREATE",
                "namespace": "default",
                "object": pod,
            },
        })
    }

    fn pod() -> Value {
        json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "app"}]}})
    }

    fn asked(review: &Value) -> Answer {
        answer(review.to_string().as_bytes(), &Template::default(), &[]).unwrap()
    }

    #[test]
    fn a_pod_is_allowed_with_a_patch() {
        let answer = asked(&review(&pod()));
        let response = &answer.review["response"];
        assert_eq!(answer.admission, Admission::Injected);
        assert_eq!(answer.review["kind"], "AdmissionReview");
        assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        assert_eq!(
            (&response["allowed"], &response["patchType"]),
            (&json!(true), &json!("JSONPatch"))
        );
        assert_eq!(response.get("warnings"), None);
        let patch = base64::decode(response["patch"].as_str().unwrap().as_bytes()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        let paths: Vec<&str> = patch
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["path"].as_str().unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "/metadata/labels",
                "/metadata/annotations",
                "/spec/initContainers",
                "/spec/volumes"
            ]
        );
    }

    #[test]
    fn whatever_is_asked_is_allowed() {
        let with = |path: &str, value: Value| {
            let mut review = review(&pod());
            *review.pointer_mut(path).unwrap() = value;
            review
        };
        for (review, wanted, warned) in [
            (
                with("/request/operation", json!("UPDATE")),
                Admission::Failed(Failure::NotAPod),
                true,
            ),
            (
                with("/request/resource", json!({"group": "apps", "resource": "pods"})),
                Admission::Failed(Failure::NotAPod),
                true,
            ),
            (
                with("/request/object", Value::Null),
                Admission::Failed(Failure::NotAPod),
                true,
            ),
            (
                with("/request/object", json!({"spec": {"containers": 1}})),
                Admission::Failed(Failure::NotAPod),
                true,
            ),
            (
                with("/request/namespace", json!("kube-system")),
                Admission::Skipped(Skip::ExcludedNamespace),
                false,
            ),
            (
                with(
                    "/request/object/spec",
                    json!({"containers": [], "hostNetwork": true}),
                ),
                Admission::Skipped(Skip::HostNetwork),
                true,
            ),
        ] {
            let answer = asked(&review);
            let response = &answer.review["response"];
            assert_eq!(
                (answer.admission, &response["allowed"]),
                (wanted, &json!(true)),
                "{review}"
            );
            assert_eq!(response.get("patch"), None);
            assert_eq!(response.get("warnings").is_some(), warned, "{review}");
        }
    }

    #[test]
    fn what_is_no_review_is_refused() {
        for body in [
            json!({}),
            json!([]),
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "x"}}),
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}),
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": ""}}),
        ] {
            assert!(
                answer(body.to_string().as_bytes(), &Template::default(), &[]).is_err(),
                "{body}"
            );
        }
        assert!(answer(b"{", &Template::default(), &[]).is_err());
    }

    #[test]
    fn warnings_are_short_and_whole() {
        let mut pod = pod();
        let long = "é".repeat(300);
        pod["spec"]["containers"][0] = json!({"name": long, "ports": [{"containerPort": 3546}]});
        let answer = asked(&review(&pod));
        let warning = answer.review["response"]["warnings"][0].as_str().unwrap();
        assert!(
            warning.len() <= WARNING_MAX && warning.len() > WARNING_MAX - 4,
            "{warning}"
        );
    }

    #[test]
    fn every_end_has_its_labels() {
        for (at, admission) in Admission::ALL.into_iter().enumerate() {
            assert_eq!(admission.index(), at);
            let [result, reason] = admission.labels();
            assert!(
                Admission::ALL[..at]
                    .iter()
                    .all(|other| other.labels() != [result, reason])
            );
        }
        for skip in Skip::ALL {
            assert!(Admission::ALL.contains(&Admission::Skipped(skip)));
        }
    }

    proptest! {
        #[test]
        fn base64_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = super::base64(&bytes);
            prop_assert_eq!(text.len() % 4, 0);
            prop_assert_eq!(base64::decode(text.as_bytes()), Some(bytes));
        }

        #[test]
        fn any_bytes_are_answered_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = answer(&bytes, &Template::default(), &[]);
        }
    }
}
