//! Why a pod gets no sidecar: a closed set, which is also the `reason` label of the webhook's metric.

use std::fmt;

/// Why a pod is left as it is (OPS 5).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Skip {
    /// The pod says so, by annotation or label.
    Disabled,
    /// It has a container called `flagside`, or the status annotation.
    AlreadyInjected,
    /// It uses the node's network, where loopback belongs to everybody, and does not ask for the sidecar itself.
    HostNetwork,
    /// It runs on Windows nodes.
    Windows,
    /// One of its containers declares a port that the sidecar needs.
    PortConflict,
    /// One of its `flagside.io/` annotations cannot be followed.
    BadAnnotation,
    /// It is in a namespace that is never touched.
    ExcludedNamespace,
}

impl Skip {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Disabled,
        Self::AlreadyInjected,
        Self::HostNetwork,
        Self::Windows,
        Self::PortConflict,
        Self::BadAnnotation,
        Self::ExcludedNamespace,
    ];

    /// As label value and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::AlreadyInjected => "already_injected",
            Self::HostNetwork => "host_network",
            Self::Windows => "windows",
            Self::PortConflict => "port_conflict",
            Self::BadAnnotation => "bad_annotation",
            Self::ExcludedNamespace => "excluded_namespace",
        }
    }

    /// Whether whoever made the pod should hear of it: the others are somebody's wish or go without saying.
    #[must_use]
    pub const fn is_surprising(self) -> bool {
        matches!(self, Self::HostNetwork | Self::PortConflict | Self::BadAnnotation)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
