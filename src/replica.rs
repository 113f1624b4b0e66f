//! A replica: collections of entries over a store, with the rules of puts, deletes, applies and
//! joins.

pub mod view;

pub use view::{
    ApplyOutcome, CollectionView, Entry, IncomingSibling, JoinRecord, JoinRequest, KeyUpdate,
    RefusalReason, Refused, RemovalLog, ViewError,
};
