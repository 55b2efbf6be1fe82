//! What programs did not get: refused, short of memory, thrown out.

use super::checks::watched;
use super::facts::Facts;
use super::{Finding, Severity};
use fourwaved::control::Denied;
use fourwaved::port::Evict;

/// What became of them within the time that was watched.
pub(super) fn programs(facts: &Facts) -> Finding {
    let id = "programs";
    let evicted = Evict::ALL.map(|why| ("clients_evicted", why.name(), why.reason()));
    let denied = Denied::ALL.map(|why| ("clients_refused", why.name(), why.explain()));
    let unread = [("segments_dropped", "no_memory", "No memory for received bytes.")];
    let mut finding = Finding::new(id, Severity::Fine, "No program was refused anything.");
    for (family, reason, text) in evicted.into_iter().chain(denied).chain(unread) {
        let name = format!("{family}{{reason=\"{reason}\"}}");
        let (now, ever) = (facts.growth(&name), facts.counters.get(&name));
        if now > 0 {
            let within = watched(facts);
            let line =
                format!("{family} ({reason}): {now} within {within} ({ever} in all). {text}");
            finding = finding.detail(line);
        }
    }
    let now = |family| facts.growth(family);
    let short = facts.growth("segments_dropped{reason=\"no_memory\"}");
    finding = finding
        .number("evicted", facts.counters.get("clients_evicted"))
        .number("refused", facts.counters.get("clients_refused"))
        .number("segments_without_memory", facts.counters.get("TCPRcvQDrop"));
    if short > 0 {
        finding.severity = Severity::Warning;
        finding.summary = "A program keeps all the memory that it may have.".to_owned();
        finding = finding.advise(
            "It does not read what has come, or has more connections than memory: raise \
             `clients.bytes`, or a rule's.",
        );
    }
    if now("clients_refused") > 0 {
        finding.severity = Severity::Warning;
        finding.summary = "Programs were refused something.".to_owned();
        finding = finding.advise("Each was told why; `[clients]` of the configuration decides.");
    }
    if now("clients_evicted") > 0 {
        finding.severity = Severity::Problem;
        finding.summary =
            "A program wrote what no correct client writes, and was disconnected.".to_owned();
        finding = finding.advise("The log names it: it is broken, or it attacks.");
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(mut facts: Facts, name: &str, by: u64) -> Facts {
        facts.counters.set(name, by);
        facts
    }

    fn text(finding: &Finding) -> String {
        [std::slice::from_ref(&finding.summary), &finding.details, &finding.advice]
            .concat()
            .join("\n")
    }

    #[test]
    fn programs_that_were_refused_or_thrown_out_are_told_of() {
        let refused = grown(Facts::default(), "clients_refused", 2);
        let refused = grown(refused, "clients_refused{reason=\"port\"}", 2);
        let finding = programs(&refused);
        assert_eq!(finding.severity, Severity::Warning);
        let said = text(&finding);
        assert!(said.contains("(port): 2 within") && said.contains("clients.rules"), "{said}");

        let short = grown(Facts::default(), "segments_dropped{reason=\"no_memory\"}", 3);
        let finding = programs(&short);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(text(&finding).contains("`clients.bytes`"));

        let evicted = grown(refused, "clients_evicted", 1);
        let evicted = grown(evicted, "clients_evicted{reason=\"send_tail\"}", 1);
        let finding = programs(&evicted);
        assert_eq!(finding.severity, Severity::Problem);
        assert!(text(&finding).contains("(send_tail): 1 within"));
        let mut long_ago = evicted;
        long_ago.earlier = long_ago.counters.clone();
        assert_eq!(programs(&long_ago).severity, Severity::Fine);
    }
}
