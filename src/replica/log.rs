//! The change log of an opening: every change of a key, and a Merkle log over them.
//!
//! Each opening of a store starts a new log, at its first change, whose first item is the head of
//! the log before: so a crash or a restored backup never makes two logs of one id.

use std::collections::BTreeMap;

use crate::hash::{HashAlgorithm, LogHash, LogHead};
use crate::store::{Batch, Read, Table};
use crate::types::CollectionName;

use super::pages::ReadError;
use super::rows::{CollectionId, Head};

