use super::*;

const SAMPLE: &str = include_str!("../../../deploy/fourwave.toml");

fn parse(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn the_sample_is_the_default() {
    assert_eq!(parse(SAMPLE), Ok(Config::default()));
}

/// Every key with a default stands in the sample as a setting, the others as a comment.
#[test]
fn the_sample_names_every_key() {
    fn names(prefix: &str, table: &toml::Table, into: &mut Vec<String>) {
        for (key, value) in table {
            into.push(format!("{prefix}{key}"));
            if let toml::Value::Table(inner) = value {
                names(&format!("{prefix}{key}."), inner, into);
            }
        }
    }
    let (mut wanted, mut found) = (Vec::new(), Vec::new());
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    names("", &defaults, &mut wanted);
    names("", &SAMPLE.parse().unwrap(), &mut found);
    for key in wanted {
        // An empty list of tables can only be shown as a comment.
        let shown = found.contains(&key) || key == "clients.rules";
        assert!(shown, "{key} is not in deploy/fourwave.toml");
    }
    for key in ["# interface =", "# metrics_address =", "# [[clients.rules]]", "# uids ="] {
        assert!(SAMPLE.contains(key), "{key} is not in deploy/fourwave.toml");
    }
}

#[test]
fn all_keys_can_be_set() {
    let config = parse(
        r#"
        interface = "eth1"
        queues = [0, 2]
        cpus = [3, 1]
        poll = "busy"
        scheduler = "fifo:10"
        metrics_address = "[::1]:9400"
        drain_timeout = "0s"
        local_ports = ""
        [tcp]
        time_wait = "1500ms"
        congestion_control = "reno"
        keepalive_time = "5min"
        ip_default_ttl = 32
        [[clients.rules]]
        uids = [33]
        ports = ["80", "8000-8999"]
        bytes = "4GiB"
        "#,
    )
    .unwrap();
    assert_eq!(config.queues.resolve(4), Some(vec![0, 2]));
    assert_eq!(config.scheduler, Scheduler::Fifo(10));
    assert_eq!(config.drain_timeout, Duration::ZERO);
    assert_eq!(config.local_ports, PortRange::NONE);
    assert_eq!(config.tcp.time_wait, Duration::from_millis(1500));
    assert_eq!(config.tcp.congestion_control, CongestionControl::Reno);
    assert_eq!(config.tcp.keepalive_time, Duration::from_secs(300));
    assert_eq!(config.tcp.ip_default_ttl, 32);
    assert_eq!(config.clients.rules[0].bytes, Some(4 << 30));
    assert_eq!(config.clients.rules[0].connections, None);
    let again: Config = toml::from_str(&config.to_toml()).unwrap();
    assert_eq!(again, config);
}

/// Each error names the key, the value or the line, and what would be right.
#[test]
fn errors_say_what_is_wrong() {
    for (text, parts) in [
        ("intreface = \"eth0\"", &["intreface", "interface"][..]),
        ("[tcp]\ntimewait = \"60s\"", &["timewait", "time_wait"]),
        ("poll = \"lazy\"", &["lazy", "adaptive"]),
        ("queues = \"some\"", &["queues", "\"all\", a number"]),
        ("queues = 0", &["queues", "1 to 64"]),
        ("queues = 2\ncpus = [1]", &["cpus", "one CPU per queue"]),
        ("spin_us = 1000001", &["spin_us", "0 to 1000000"]),
        ("umem_frames = 5000", &["umem_frames", "5000", "powers of two"]),
        ("drain_timeout = 5", &["drain_timeout", "string"]),
        ("drain_timeout = \"2h\"", &["drain_timeout", "1h"]),
        ("local_ports = \"9-1\"", &["local_ports", "9-1", "FIRST-LAST"]),
        ("runtime_dir = \"run\"", &["runtime_dir", "absolute"]),
        ("scheduler = \"fifo:100\"", &["scheduler", "fifo:99"]),
        ("metrics_address = \"9400\"", &["metrics_address", "socket address"]),
        ("interface = \"a-name-too-long!\"", &["interface", "15 bytes"]),
        ("[tcp]\nrto_initial = \"1ms\"", &["tcp.rto_initial", "tcp.rto_min"]),
        ("[tcp]\nsomaxconn = 0", &["tcp.somaxconn", "1 to 65535"]),
        ("[tcp]\ncongestion_control = \"bbr\"", &["bbr", "cubic", "reno"]),
        ("[tcp]\nkeepalive_time = \"1500ms\"", &["tcp.keepalive_time", "whole seconds"]),
        ("[tcp]\nkeepalive_intvl = \"0s\"", &["tcp.keepalive_intvl", "1s to 32767s"]),
        ("[tcp]\nkeepalive_probes = 0", &["tcp.keepalive_probes", "1 to 127"]),
        ("[tcp]\ninitial_window = 0", &["tcp.initial_window", "1 to 64"]),
        ("[tcp]\nsyncookies = 3", &["tcp.syncookies", "0, 1 and 2"]),
        ("[tcp]\nrmem = \"32KiB\"", &["tcp.rmem", "64KiB"]),
        ("[tcp]\nwmem = \"2GiB\"", &["tcp.wmem", "1GiB"]),
        ("[clients]\nbytes = \"1GB\"", &["bytes", "1GB", "GiB"]),
        (
            "[[clients.rules]]\n[[clients.rules]]\nbytes = \"1KiB\"",
            &["clients.rules[1].bytes", "1024", "1MiB"],
        ),
    ] {
        let error = parse(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text:?} gives {error:?}, without {part:?}");
        }
    }
}
