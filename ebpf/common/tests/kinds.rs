//! One frame of each kind.

mod support;

use fourwave_ebpf_common::{Action, Config, PortKey, Ports, Verdict, classify};
use support::Served;
use support::reference::expected;
use support::samples::{Sample, samples};

#[test]
fn each_kind_of_frame_gets_its_verdict() {
    let served = Served::new();
    for Sample { name, frame, verdict } in samples() {
        let found = classify(&frame[..], &served, Config::default());
        assert_eq!(found, verdict, "{name}");
        assert_eq!(expected(&frame), verdict, "{name}, the reference");
    }
}

#[test]
fn every_verdict_that_classify_can_reach_has_a_sample() {
    let samples = samples();
    for verdict in Verdict::ALL {
        let reachable = !matches!(verdict, Verdict::DropNoSocket | Verdict::DropSyn);
        let sampled = samples.iter().any(|sample| sample.verdict == verdict);
        assert_eq!(sampled, reachable, "{verdict}");
    }
}

#[test]
fn a_frame_cut_short_is_never_steered_on_a_guess() {
    let served = Served::new();
    for sample in samples() {
        for length in 0..sample.frame.len() {
            let cut = &sample.frame[..length];
            let found = classify(cut, &served, Config::default());
            assert_eq!(found, expected(cut), "{} cut to {length}", sample.name);
            // Where the flags are cut off, what is a SYN is not seen to be one.
            let without_flags = (Verdict::SteerTcp, Verdict::SteerSyn);
            let same = found == sample.verdict || (found, sample.verdict) == without_flags;
            let pass = found.action() == Action::Pass;
            assert!(same || pass, "{} cut to {length}: {found}", sample.name);
        }
    }
}

#[test]
fn without_the_flag_icmp_errors_go_to_the_kernel() {
    let config = Config { flags: 0, ..Config::default() };
    let steered = samples().into_iter().filter(|sample| sample.verdict == Verdict::SteerIcmp);
    let mut count = 0;
    for sample in steered {
        let found = classify(&sample.frame[..], &Served::new(), config);
        assert_eq!(found, Verdict::PassOther, "{}", sample.name);
        count += 1;
    }
    assert!(count > 2);
}

#[test]
fn nothing_is_steered_while_nothing_is_served() {
    struct Nothing;
    impl Ports for Nothing {
        fn contains(&self, _: &PortKey) -> bool {
            false
        }
    }
    for sample in samples() {
        let found = classify(&sample.frame[..], &Nothing, Config::default());
        let dropped_unread = found == Verdict::DropHeaderChain;
        let pass = found.action() == Action::Pass;
        assert!(dropped_unread || pass, "{}: {found}", sample.name);
    }
}

#[test]
fn keys_have_no_padding_and_their_wildcard_stays_in_the_family() {
    let v4 = PortKey::v4([10, 1, 2, 3], 0x1234);
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
    assert_eq!(PortKey::new(bytes.clone().try_into().expect("16 bytes"), 0x1234), v4);
    bytes.extend(0x1234_u32.to_ne_bytes());
    assert_eq!(v4.to_bytes()[..], bytes);
    assert!(v4.is_v4());
    assert_eq!(v4.any_address(), PortKey::v4([0; 4], 0x1234));

    let v6 = PortKey::new(support::HOST6, 1);
    assert!(!v6.is_v4());
    assert_eq!(v6.any_address(), PortKey::new([0; 16], 1));
}

#[test]
fn the_config_is_laid_out_in_order() {
    let config = Config { layout: 1, flags: 2 };
    let words = [1_u32.to_ne_bytes(), 2_u32.to_ne_bytes()].concat();
    assert_eq!(config.to_bytes()[..], words);
}

#[test]
fn names_are_distinct() {
    for (index, verdict) in Verdict::ALL.iter().enumerate() {
        let same = Verdict::ALL[index + 1..].iter().any(|other| other.name() == verdict.name());
        assert!(!same, "{verdict}");
        let prefix = match verdict.action() {
            Action::Pass => "pass_",
            Action::Steer => "steer_",
            Action::Drop => "drop_",
        };
        assert!(verdict.name().starts_with(prefix), "{verdict}");
    }
}
