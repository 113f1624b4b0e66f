//! `selfsame peer invite`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use clap::Args;

use super::{GrantArguments, now_unix_s};
use crate::cli::error::CliError;
use crate::cli::output::{date_time, note, print};
use crate::cli::{Context, Exit};
use crate::net::HostPort;
use crate::node::home::Home;
use crate::node::pairing::{Invitation, Invites, OpenInvite, Secret};
use crate::node::peers::{PeerFiles, PeerName, PeersError};

/// Longest time that an invitation may be open.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Prints an invitation: a string by which another node pairs with this one, once
///
/// Give it to whoever runs `selfsame peer join` on the other machine, by a way that nobody else
/// reads: who has it first is paired. `selfsame serve` or `selfsame listen` must run here for it to
/// be used. `selfsame peer invites` lists the invitations that are open, `selfsame peer uninvite`
/// takes one back. Without --grant, the node that joins may read and write every collection of
/// this node.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame peer invite --address node-a.example:7447
  selfsame peer invite --name berlin --grant players=read --expires 10m")]
pub(in crate::cli) struct Invite {
    /// Where the other node reaches this one; tried in this order; may be repeated [default:
    /// listen in config.toml, or the addresses by which this machine reaches others]
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<HostPort>,
    /// How the node that joins will be called here
    #[arg(long)]
    name: Option<PeerName>,
    #[command(flatten)]
    grants: GrantArguments,
    /// For how long it can be used: 90s, 15m, 1h, 7d; 30d at most
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    expires: Duration,
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time from 1s to 30d: write 90s, 15m, 1h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)?;
    if time.is_zero() || time > LONGEST { Err(wrong()) } else { Ok(time) }
}

impl Invite {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        let own = Home::identity_of(&folder)?.node_id();
        let files = PeerFiles::new(&folder);
        if let Some(name) = &self.name
            && let Some(owner) = files.book()?.named(name)
        {
            return Err(PeersError::NameTaken { name: name.clone(), owner: owner.id }.into());
        }
        let guessed = self.addresses.is_empty();
        let addresses = match guessed {
            true => reached_at(Home::config_of(&folder)?.listen)?,
            false => self.addresses,
        };
        let now = now_unix_s();
        let expires = now.saturating_add(self.expires.as_secs());
        let secret = Secret::generate().map_err(|error| CliError::Home(error.into()))?;
        let invitation = Invitation::new(own, addresses, secret, expires)?;
        let grants = self.grants.grants();
        let invite = OpenInvite::new(&invitation, now, self.name, grants);
        let told = format!(
            "invitation {}, for one use until {}; who uses it may do here: {}\nit names {}{}\n\
             there: selfsame peer join STRING",
            invite.id(),
            date_time(expires.saturating_mul(1_000)),
            invite.grants,
            places(invitation.addresses()),
            if guessed {
                " (say --address HOST:PORT if peers reach this node elsewhere)"
            } else {
                ""
            },
        );
        Invites::new(&files).add(invite, now)?;
        print(invitation.reveal())?;
        note(told);
        Ok(Exit::Done)
    }
}

fn places(addresses: &[HostPort]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Where peers are likely to reach a node that listens there.
fn reached_at(listen: SocketAddr) -> Result<Vec<HostPort>, CliError> {
    let unknown = || CliError::OwnAddress(listen.port());
    if listen.port() == 0 {
        return Err(unknown());
    }
    if !listen.ip().is_unspecified() {
        return Ok(vec![listen.into()]);
    }
    // of addresses that stand for the rest of the world; nothing is sent there
    let mut faces = vec![own_face(Ipv4Addr::new(192, 0, 2, 1).into())];
    if listen.is_ipv6() {
        faces.push(own_face(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()));
    }
    let found: Vec<_> = faces
        .into_iter()
        .flatten()
        .map(|ip| HostPort::from(SocketAddr::new(ip, listen.port())))
        .collect();
    if found.is_empty() { Err(unknown()) } else { Ok(found) }
}

/// The address with which this machine would speak to another.
fn own_face(other: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match other {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((other, 9)).ok()?;
    let face = socket.local_addr().ok()?.ip();
    (!face.is_unspecified() && !face.is_loopback()).then_some(face)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        for (text, seconds) in
            [("1s", 1), ("90s", 90), ("15m", 900), ("1h", 3_600), ("30d", 2_592_000)]
        {
            assert_eq!(time(text).unwrap().as_secs(), seconds);
        }
        for text in ["", "s", "0s", "5", "1y", "31d", "-1h", "1 h", "99999999999999999999h", "1é"]
        {
            assert!(time(text).unwrap_err().contains("30d"), "{text}");
        }
    }

    #[test]
    fn an_address_that_one_listens_on_is_where_one_is_reached() {
        let at = |text: &str| reached_at(text.parse().unwrap());
        assert_eq!(places(&at("192.0.2.7:7447").unwrap()), "192.0.2.7:7447");
        assert_eq!(places(&at("[::1]:7447").unwrap()), "[::1]:7447");
        assert!(matches!(at("192.0.2.7:0"), Err(CliError::OwnAddress(0))));
        for place in at("[::]:7447").unwrap_or_default() {
            assert_eq!(place.port(), 7447);
        }
    }
}
