//! The codes with which connections are closed and streams given up: the whole table.
//!
//! ```
//! use selfsame::net::CloseCode;
//!
//! assert_eq!(CloseCode::from_wire(3), CloseCode::Busy);
//! assert_eq!(CloseCode::from_wire(99), CloseCode::Unknown(99));
//! assert_eq!(CloseCode::Busy.to_wire(), 3);
//! ```

use std::fmt;

macro_rules! wire_codes {
    ($(#[$outer:meta])* $name:ident {
        $($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)*
    }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A code that this version does not know.
            Unknown(u64),
        }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub const fn to_wire(self) -> u64 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            /// From the number on the wire; every number has a meaning.
            #[must_use]
            pub const fn from_wire(code: u64) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }

            pub(super) fn var_int(self) -> quinn::VarInt {
                quinn::VarInt::from_u64(self.to_wire()).unwrap_or(quinn::VarInt::MAX)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.pad($text),)*
                    Self::Unknown(code) => write!(f, "unknown code {code}"),
                }
            }
        }
    };
}

wire_codes! {
    /// Why a connection was closed.
    CloseCode {
        /// Nothing is left to do; also what a dropped connection sends.
        Done = 0, "done";
        /// The node stops.
        ShuttingDown = 1, "the node is shutting down";
        /// Another connection between the same two nodes is kept.
        Duplicate = 2, "another connection to the same node is kept";
        /// Too many connections or sessions; the reason may say when to try again.
        Busy = 3, "busy, try again later";
        /// No common protocol version, codec or hash.
        Incompatible = 4, "no common protocol version";
        /// The peer broke the protocol.
        Protocol = 5, "protocol violated";
        /// The peer exceeded a limit.
        Limit = 6, "limit exceeded";
        /// The peer is not, or no longer, admitted.
        NotAdmitted = 7, "not admitted";
        /// The peer was too slow.
        TooSlow = 8, "deadline missed";
        /// The peer is banned for what it did.
        Banned = 9, "banned";
        /// A fault of the closing node.
        Internal = 10, "internal fault";
    }
}

wire_codes! {
    /// Why a stream was given up.
    StreamCode {
        /// Its owner let go of it before the end; also what a dropped stream sends.
        Abandoned = 0, "abandoned";
        /// What it carries is not needed.
        Unneeded = 1, "not needed";
        /// What it carries breaks the protocol.
        Protocol = 2, "protocol violated";
        /// What it carries exceeds a limit.
        Limit = 3, "limit exceeded";
        /// The session it belongs to was refused or has ended.
        NoSession = 4, "no such session";
        /// It was too slow.
        TooSlow = 5, "deadline missed";
        /// A fault of the node that gave it up.
        Internal = 6, "internal fault";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire() {
        for code in (0..20).chain([u64::from(u32::MAX), (1 << 62) - 1]) {
            assert_eq!(CloseCode::from_wire(code).to_wire(), code);
            assert_eq!(CloseCode::from_wire(code).var_int().into_inner(), code);
            assert_eq!(StreamCode::from_wire(code).to_wire(), code);
        }
        assert_eq!(StreamCode::Unknown(u64::MAX).var_int(), quinn::VarInt::MAX);
    }
}
