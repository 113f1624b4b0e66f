//! What two ends of a connection offer each other: the whole once, then what is new and what is
//! gone.
//!
//! ```
//! use selfsame::hash::HashAlgorithm;
//! use selfsame::node::forest::offers::Offers;
//! use selfsame::session::message::{WirePolicy, WireSpec};
//!
//! let spec = |name: &str| WireSpec {
//!     name: name.to_owned(),
//!     algorithm: HashAlgorithm::Blake3,
//!     policy: WirePolicy::Lww,
//! };
//! let (told, now) = (vec![spec("items"), spec("players")], vec![spec("items"), spec("teams")]);
//! let (news, known) = Offers::news(Some(&told), &now);
//! assert_eq!(known, now);
//! let news = news.expect("something changed");
//! assert_eq!(news.gone, ["players"]);
//! assert_eq!(news.apply(&told)?, now);
//! # Ok::<(), selfsame::node::forest::ranges::ForestFault>(())
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ranges::ForestFault;
use crate::session::message::{WirePolicy, WireSpec};

/// Most collections that a peer may offer: about 100 bytes of memory each.
pub const MOST_OFFERED: usize = 1 << 17;
/// News are told in parts of at most so many bytes, so that a frame holds them and what goes along.
const PART_BYTES: usize = 900 << 10;
/// What is counted for each besides its text: the codec holds what is to be in memory against the
/// limit of a frame, not what is on the wire.
const ITEM_BYTES: usize = 96;

/// What an end offers now, against what it told last. A greeting tells the first part.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Offers {
    /// Whether all that was told before is to be forgotten.
    pub anew: bool,
    /// Collections that are new, or are no longer as they were.
    pub now: Vec<WireSpec>,
    /// Names of those that are gone.
    pub gone: Vec<String>,
}

impl Offers {
    /// What is to be told to an end that knows of `told` (or is to forget whatever it knows), if
    /// anything is; and what it knows then, ascending by name. More than a frame holds is told in
    /// part; the rest is news the next time.
    #[must_use]
    pub fn news(told: Option<&[WireSpec]>, now: &[WireSpec]) -> (Option<Self>, Vec<WireSpec>) {
        let mut known = by_name(told.unwrap_or_default().iter().cloned());
        let wanted = by_name(now.iter().cloned());
        let mut news = Self { anew: told.is_none(), ..Self::default() };
        let mut room = PART_BYTES;
        let mut fits = |bytes: usize| {
            let left = room.checked_sub(bytes + ITEM_BYTES);
            room = left.unwrap_or(0);
            left.is_some()
        };
        let gone = known.keys().filter(|name| !wanted.contains_key(*name)).cloned();
        news.gone = gone.take_while(|name| fits(name.len())).collect();
        let fresh = wanted.values().filter(|spec| known.get(&spec.name) != Some(*spec)).cloned();
        news.now = fresh.take_while(|spec| fits(text_bytes(spec))).collect();
        news.gone.iter().for_each(|name| drop(known.remove(name)));
        known.extend(by_name(news.now.iter().cloned()));
        let some = news.anew || !news.now.is_empty() || !news.gone.is_empty();
        (some.then_some(news), known.into_values().collect())
    }

    /// What is known with these news, ascending by name.
    ///
    /// # Errors
    /// More than [`MOST_OFFERED`].
    pub fn apply(self, known: &[WireSpec]) -> Result<Vec<WireSpec>, ForestFault> {
        let mut known = if self.anew { BTreeMap::new() } else { by_name(known.iter().cloned()) };
        self.gone.iter().for_each(|name| drop(known.remove(name)));
        known.extend(by_name(self.now));
        if known.len() > MOST_OFFERED {
            return Err(ForestFault::Offers { limit: MOST_OFFERED });
        }
        Ok(known.into_values().collect())
    }
}

fn by_name(specs: impl IntoIterator<Item = WireSpec>) -> BTreeMap<String, WireSpec> {
    specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect()
}

fn text_bytes(spec: &WireSpec) -> usize {
    let resolver = match &spec.policy {
        WirePolicy::Custom { resolver, .. } => resolver.len(),
        _ => 0,
    };
    spec.name.len() + resolver
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hash::HashAlgorithm;
    use proptest::prelude::*;

    fn spec(name: u16, policy: bool) -> WireSpec {
        let policy = if policy { WirePolicy::Lww } else { WirePolicy::Siblings };
        WireSpec { name: format!("c{name:05}"), algorithm: HashAlgorithm::Blake3, policy }
    }

    fn offers() -> impl Strategy<Value = Vec<WireSpec>> {
        prop::collection::btree_map(0u16..30, any::<bool>(), 0..20)
            .prop_map(|map| map.into_iter().map(|(name, policy)| spec(name, policy)).collect())
    }

    proptest! {
        #[test]
        fn news_make_the_known_what_is_offered(
            told in prop::option::of(offers()), now in offers(), stale in offers(),
        ) {
            let (news, known) = Offers::news(told.as_deref(), &now);
            prop_assert_eq!(&known, &now);
            prop_assert_eq!(news.is_none(), told.as_ref() == Some(&now));
            let Some(news) = news else { return Ok(()) };
            let frame = crate::session::wire::encode(&news).unwrap();
            prop_assert_eq!(&crate::session::wire::decode::<Offers>(&frame).unwrap(), &news);
            // whoever is told anew may know anything
            let before = told.unwrap_or(stale);
            prop_assert_eq!(news.apply(&before).unwrap(), now);
        }
    }

    #[test]
    fn short_names_fit_the_codec_too() {
        let now: Vec<WireSpec> = (0..20_000).map(|number| spec(number, true)).collect();
        let (news, known) = Offers::news(None, &now);
        let frame = crate::session::wire::encode(&news.unwrap()).unwrap();
        let heard: Offers = crate::session::wire::decode(&frame).unwrap();
        assert_eq!(heard.apply(&[]).unwrap(), known);
        assert!(known.len() > 8_000, "{}", known.len());
    }

    #[test]
    fn what_fits_no_frame_is_told_in_parts() {
        let long = |number: usize| WireSpec { name: format!("{number:0>255}"), ..spec(0, true) };
        let now: Vec<WireSpec> = (0..10_000).map(long).collect();
        let (mut told, mut rounds) = (None, 0);
        let mut heard = Vec::new();
        while let (Some(news), known) = Offers::news(told.as_deref(), &now) {
            let frame = crate::session::wire::encode(&news).unwrap();
            assert!(frame.len() < 900 << 10, "{}", frame.len());
            heard = news.apply(&heard).unwrap();
            assert_eq!(heard, known, "both ends know the same after each part");
            told = Some(known);
            rounds += 1;
        }
        assert_eq!((heard, rounds), (now, 4));
    }

    #[test]
    fn offers_without_end_are_refused() {
        let known: Vec<WireSpec> = (0..MOST_OFFERED)
            .map(|number| WireSpec { name: number.to_string(), ..spec(0, true) })
            .collect();
        let more = Offers { now: vec![spec(1, true)], ..Offers::default() };
        let refused = more.clone().apply(&known);
        assert_eq!(refused, Err(ForestFault::Offers { limit: MOST_OFFERED }));
        assert!(Offers { anew: true, ..more }.apply(&known).is_ok());
    }
}
