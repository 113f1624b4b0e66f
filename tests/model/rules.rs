//! What always holds, and what must happen somewhere, so that the search is about something.

use selfsame::dots::Dot;
use selfsame::session::Outcome;
use stateright::Property;

use super::flight::Side;
use super::system::{State, System};
use crate::harness::oracle::Kill;

/// What always holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    Oracle,
    Claims,
    Deleted,
    Vanished,
    Joined,
    OneDot,
    Outcomes,
}

/// What a step comes to, or the rule that it broke.
pub type Held<T> = Result<T, (Rule, String)>;

pub fn of<T>(rule: Rule, held: Result<T, String>) -> Held<T> {
    held.map_err(|what| (rule, what))
}

/// Rules that no state breaks.
pub fn always() -> Vec<Property<System>> {
    fn keeps(state: &State, rule: Rule) -> bool {
        state.broken.as_ref().is_none_or(|(broken, _)| *broken != rule)
    }
    macro_rules! kept {
        ($($name:literal: $rule:ident),* $(,)?) => {
            vec![$(Property::always($name, |_, state| keeps(state, Rule::$rule))),*]
        };
    }
    let mut rules = kept! {
        // entries, values, index, tree, root, canonical context, exceptions, and what is synced
        "a node is what a replica that never forgets says": Oracle,
        "what is given was held, and what is named was seen dead": Claims,
        "nothing is gone that nobody deleted": Deleted,
        "no key vanishes before what replaced it is there": Vanished,
        "nobody joins what never came": Joined,
        "no dot stands for two puts": OneDot,
        "the two ends say what is so, and do not contradict": Outcomes,
    };
    rules.push(Property::always(
        "from wherever no session runs, one in peace makes both nodes the same",
        |system: &System, state: &State| {
            state.broken.is_some() || !state.flights.is_empty() || system.settles(state).is_ok()
        },
    ));
    rules
}

/// What happens somewhere within the bounds.
pub fn sometimes() -> Vec<Property<System>> {
    vec![
        Property::sometimes("a session is certified", |_, state: &State| {
            ends(state, |outcome| matches!(outcome, Outcome::Complete { certificate: Some(_) }))
        }),
        Property::sometimes("equal nodes find that they are", |_, state: &State| {
            ends(state, |outcome| matches!(outcome, Outcome::Complete { certificate: None }))
        }),
        Property::sometimes("a value travels on the lane of values", |_, state: &State| {
            let mut inboxes = state.flights.iter().flat_map(|flight| &flight.inbox);
            inboxes.any(|lanes| !lanes[1].is_empty())
        }),
        Property::sometimes(
            "a process dies in a session that goes on at the peer",
            |_, state: &State| {
                let lone = |sides: &[Side; 2]| {
                    matches!(sides, [Side::Runs(_), Side::Gone] | [Side::Gone, Side::Runs(_)])
                };
                state.flights.iter().any(|flight| lone(&flight.sides))
            },
        ),
        Property::sometimes("siblings live at both nodes", |_, state: &State| {
            let mut nodes = state.nodes.iter();
            nodes.all(|node| node.model.entries.values().any(|siblings| siblings.len() > 1))
        }),
        Property::sometimes("a node has exceptions", |_, state: &State| {
            state.nodes.iter().any(|node| !node.model.canonical().1.is_empty())
        }),
        Property::sometimes("a put survives a delete that had not seen it", |_, state: &State| {
            let [one, other] = &state.nodes;
            let deleted = |key: &u8| {
                let of_key =
                    |dot: &Dot| state.truth.written.get(dot).is_some_and(|(of, ..)| of == key);
                let mut kills = state.truth.kills.iter().filter(|(dot, _)| of_key(dot));
                kills.any(|(_, kills)| kills.contains(&Kill::Delete))
            };
            one.model == other.model && one.model.entries.keys().any(deleted)
        }),
        Property::sometimes(
            "a restored node and its peer are the same again",
            |_, state: &State| {
                let [one, other] = &state.nodes;
                state.restored && one.model == other.model && !one.model.entries.is_empty()
            },
        ),
    ]
}

/// Whether an end of a session has this outcome.
fn ends(state: &State, is: impl Fn(&Outcome) -> bool) -> bool {
    let mut sides = state.flights.iter().flat_map(|flight| &flight.sides);
    sides.any(|side| matches!(side, Side::Ended(outcome) if is(outcome)))
}
