//! How flows are dealt out to workers: as the NIC deals them out to its queues, if that is known.

use fourwave_stack::{Owners, Rss};
use std::sync::Arc;

/// Asks the interface's driver. `queues` names the queue of each worker.
pub(super) fn owners(interface: &str, queues: &[u32]) -> Owners {
    if queues.len() < 2 {
        return Owners::Hash;
    }
    let told = fourwave_xdp::rss(interface).unwrap_or_else(|error| {
        tracing::warn!(interface, %error, "cannot ask how frames are dealt out to queues");
        None
    });
    match told.and_then(|told| follow(&told, queues)) {
        Some(rss) => {
            tracing::info!(interface, "flows belong to workers as the interface's RSS deals them");
            Owners::Rss(Arc::new(rss))
        }
        None => {
            tracing::info!(
                interface,
                "the interface's RSS is not known: flows belong to workers by a keyed hash, and \
                 frames that arrive elsewhere are handed over"
            );
            Owners::Hash
        }
    }
}

/// `None` when frames go to a queue that no worker has, or the hash is one that we do not know.
fn follow(told: &fourwave_xdp::Rss, queues: &[u32]) -> Option<Rss> {
    // Fewer than 64 workers.
    let worker = |queue: &u32| Some(queues.iter().position(|own| own == queue)? as u32);
    let workers: Option<Box<[u32]>> = told.table.iter().map(worker).collect();
    Rss::new(&told.key, workers?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_wire::{Endpoint, FourTuple};

    fn told(table: &[u32]) -> fourwave_xdp::Rss {
        fourwave_xdp::Rss { key: (1..=40).collect(), table: table.to_vec() }
    }

    #[test]
    fn workers_are_those_of_the_queues() {
        let rss = follow(&told(&[4, 2, 2, 4]), &[2, 4]).unwrap();
        let same = follow(&told(&[1, 0, 0, 1]), &[0, 1]).unwrap();
        let end = |text: &str, port| Endpoint { port, ..endpoint(text) };
        let owners: Vec<u32> = (1..200)
            .map(|port| FourTuple {
                local: end("10.0.0.1:80", 80),
                remote: end("10.0.0.2:0", port),
            })
            .inspect(|tuple| assert_eq!(rss.worker(tuple), same.worker(tuple)))
            .map(|tuple| rss.worker(&tuple))
            .collect();
        assert!(owners.contains(&0) && owners.contains(&1));
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[test]
    fn a_table_with_a_queue_of_nobodys_is_not_followed() {
        assert!(follow(&told(&[0, 1, 2, 3]), &[0, 1, 2]).is_none());
        assert!(follow(&told(&[0, 1, 0]), &[0, 1]).is_none());
        assert!(matches!(owners("lo", &[0, 1]), Owners::Hash));
        assert!(matches!(owners("no-such-if0", &[0, 1]), Owners::Hash));
        assert!(matches!(owners("lo", &[0]), Owners::Hash));
    }
}
