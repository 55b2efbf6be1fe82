//! Options of connections: set, preset for the next one, asked for.

use super::Worker;
use super::host::conn_from_raw;
use crate::port::{AppId, Evict, Life, settings};
use fourwave_protocol::Handle;
use fourwave_protocol::command::Event;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::report::{ConnInfo, Report};
use fourwave_tcp::{Info, Recovery, State};

impl Worker {
    pub(super) fn set_option(
        &mut self,
        slot: u32,
        handle: Handle,
        option: ConnOption,
        value: u32,
    ) -> Result<(), Evict> {
        let Some(index) = self.resolve(slot, handle)? else { return Ok(()) };
        let group = self.env.clients.of(AppId { group: slot, conn: index });
        let settings = group.choose(index, option, value);
        let conn = group.conn(index);
        if conn.life == Life::Open {
            let stack = conn_from_raw(conn.stack);
            // Stale: the connection ended in this very turn.
            let _ = match option {
                ConnOption::QuickAck => self.shard.set_quickack(stack, value != 0),
                _ => self.shard.apply(self.env.now, stack, &settings),
            };
        }
        Ok(())
    }

    /// An option of the connection that the lane opens next.
    pub(super) fn preset(&mut self, slot: u32, lane: u16, option: ConnOption, value: u32) {
        if let Some(group) = self.env.clients.group(slot) {
            group.preset(lane, option, value);
        }
    }

    /// Answers with all that is known of a connection; with nothing for a stale handle.
    pub(super) fn ask(
        &mut self,
        slot: u32,
        lane: u16,
        token: u32,
        handle: Handle,
    ) -> Result<(), Evict> {
        let report = match self.resolve(slot, handle)? {
            Some(index) => self.report(slot, index),
            None => Report::default(),
        };
        let Some(group) = self.env.clients.group(slot) else { return Ok(()) };
        group.leave_report(lane, &report);
        group.answer(slot, lane, Event::Reported { token }, &mut self.env.notices)
    }

    fn report(&mut self, slot: u32, index: u32) -> Report {
        let conn = self.env.clients.of(AppId { group: slot, conn: index }).conn(index);
        let cfg = &self.shard.config().tcp;
        let mut report =
            Report { options: settings::all(&conn.settings, cfg), ..Report::default() };
        let stack = conn_from_raw(conn.stack);
        if conn.life != Life::Open {
            return report;
        }
        let (Ok(info), Ok(tcb)) = (self.shard.info(self.env.now, stack), self.shard.tcb(stack))
        else {
            return report;
        };
        let now = [
            (ConnOption::QuickAck, u32::from(tcb.quickack())),
            // As in Linux: what is sent, and not what was asked for.
            (ConnOption::MaxSegment, info.snd_mss),
        ];
        for (option, value) in now {
            report.options[option.index()] = value;
        }
        report.is_live = true;
        report.info = words(&info);
        report
    }
}

fn words(info: &Info) -> ConnInfo {
    let (send_scale, receive_scale) = info.window_scales.unwrap_or_default();
    ConnInfo {
        state: state_number(info.state),
        congestion_state: match info.recovery {
            Recovery::Open => 0,
            Recovery::Disorder => 1,
            Recovery::Recovery => 3,
            Recovery::Loss => 4,
        },
        retransmits: info.retries.into(),
        probes: info.probes.into(),
        backoff: info.backoff.into(),
        timestamps: info.timestamps.into(),
        sack: info.sack.into(),
        ecn: info.ecn.into(),
        scaling: info.window_scales.is_some().into(),
        send_scale: send_scale.into(),
        receive_scale: receive_scale.into(),
        rto: info.rto,
        ato: info.ato,
        send_mss: info.snd_mss.into(),
        receive_mss: info.rcv_mss.into(),
        advertised_mss: info.advertised_mss.into(),
        unacknowledged: info.unacknowledged.into(),
        held: info.held.into(),
        lost: info.lost.into(),
        since_sent: info.since_sent,
        since_received: info.since_received,
        since_heard: info.since_heard,
        rtt: info.rtt,
        rtt_variance: info.rtt_variance,
        min_rtt: info.min_rtt.unwrap_or(u64::MAX),
        congestion_window: info.congestion_window.into(),
        slow_start_threshold: info.slow_start_threshold.into(),
        send_window: info.send_window.into(),
        receive_window: info.receive_window.into(),
        receive_limit: info.receive_limit.into(),
        read_in_a_round_trip: info.read_in_a_round_trip.into(),
        receive_rtt: info.receive_rtt.unwrap_or(0),
        path_mtu: info.path_mtu.unwrap_or(0).into(),
        unsent: info.unsent,
        bytes_acked: info.bytes_acked,
        bytes_received: info.bytes_received,
        bytes_sent: info.bytes_sent,
        bytes_resent: info.bytes_resent,
        total_retransmits: info.retransmits.into(),
        segments_in: info.segments_in.into(),
        segments_out: info.segments_out.into(),
        data_segments_in: info.data_segments_in.into(),
        data_segments_out: info.data_segments_out.into(),
        reordering_seen: info.reordering_seen.into(),
    }
}

/// As Linux numbers them in `tcp_states.h`.
fn state_number(state: State) -> u64 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Listen => 10,
        State::Closing => 11,
    }
}
