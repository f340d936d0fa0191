//! The closed label sets (OPS 8). Each is an enum with `ALL`, `as_str` and an index, so that metric
//! children are arrays and no label is ever looked up, or taken from a request.

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in index order.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The label's text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Position in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Who produced an answer (design 5). Feeds header, metric, log and test.
    Source {
        /// A stored response, fresh, of the current flag revision.
        Hit = "hit",
        /// A stored response within stale-while-revalidate.
        Stale = "stale",
        /// A stored response, used because upstream failed or was late.
        StaleError = "stale_error",
        /// Upstream, asked for this request.
        Miss = "miss",
        /// Upstream, asked for another request of the same key.
        Coalesced = "coalesced",
        /// Computed here from the synced flags.
        Local = "local",
        /// Relayed without being stored.
        Passthrough = "passthrough",
        /// Made by flagside itself: errors, preflights, status.
        None = "none",
    }
}

label! {
    /// The closed set of routes.
    Route {
        /// `/v1/vardata`
        VardataV1 = "vardata_v1",
        /// `/sdk/vardata`
        VardataLegacy = "vardata_legacy",
        /// `/sdk/v2/vardata`
        VardataV2 = "vardata_v2",
        /// `/v1/flags`
        FlagsV1 = "flags_v1",
        /// `/sdk/v2/flags`
        FlagsV2 = "flags_v2",
        /// `/sdk/v1/cohort/{id}`
        Cohort = "cohort",
        /// `/sdk/v2/memberships/{type}/{name}`
        Memberships = "memberships",
        /// `/sdk/stream/v1/flags` and `/sdk/stream/v1/vardata`
        Stream = "stream",
        /// `/web/v1/configs`
        WebConfigs = "web_configs",
        /// Any other path below `/v1/`, `/sdk/` and `/web/`
        Passthrough = "passthrough",
        /// `/status`
        Status = "status",
        /// Everything else
        Other = "other",
    }
}

label! {
    /// How an exchange with an upstream ended.
    Outcome {
        /// 200 to 299
        Success = "2xx",
        /// 300 to 399
        Redirect = "3xx",
        /// 400 to 499 but 401, 403 and 429
        ClientError = "4xx",
        /// 401 or 403
        Rejected = "401_403",
        /// 429
        Throttled = "429",
        /// 500 to 599
        ServerError = "5xx",
        /// The name did not resolve
        Dns = "dns",
        /// No TCP connection
        Connect = "connect",
        /// No TLS session
        Tls = "tls",
        /// A deadline passed
        Timeout = "timeout",
        /// The connection broke
        Reset = "reset",
        /// Not HTTP, truncated, too large, or not the promised shape
        Protocol = "protocol",
        /// Not tried: the breaker is open
        CircuitOpen = "circuit_open",
        /// Given up by us
        Cancelled = "cancelled",
    }
}

label! {
    /// What an upstream was asked for.
    Operation {
        /// vardata
        Evaluate = "evaluate",
        /// flag sets
        Flags = "flags",
        /// cohorts
        Cohort = "cohort",
        /// server-sent events
        Stream = "stream",
        /// everything else
        Passthrough = "passthrough",
    }
}
