//! What is to be done about a rollout, by what is known at a moment: a pure function of both.

use std::collections::BTreeMap;

use gatewright_model::rollout::Share;
use gatewright_model::rollout::verdict::{Comparison, Counts, Marks, Verdict};

use crate::store::{InstanceRow, RolloutKind, RolloutRow};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing yet, and why.
    Wait(String),
    /// The step at this place begins.
    Step(usize),
    /// The candidate becomes the running version, or stays it.
    Promote(String),
    /// The steps led back to nothing.
    Finish,
    /// The candidate is worse.
    Abort(String),
}

/// What gateways have counted of both versions so far.
pub(crate) fn counted(row: &RolloutRow, instances: &[InstanceRow]) -> Marks {
    let versions = [&row.candidate.number, &row.baseline.number];
    let mut counted = Marks::new();
    for instance in instances {
        let heartbeat = &instance.heartbeat;
        let of_service = heartbeat.versions.iter().filter(|counts| counts.service_id == row.service_id);
        let wanted = of_service.filter(|counts| versions.contains(&&counts.version));
        let counts: BTreeMap<_, _> = wanted.map(|it| (it.version.clone(), it.counts.clone())).collect();
        if !counts.is_empty() {
            counted.insert(heartbeat.instance_id.to_string(), counts);
        }
    }
    counted
}

/// Both versions since the marks of the rollout.
pub(crate) fn comparison(row: &RolloutRow, counted: &Marks) -> Comparison {
    let sum = |version: &str| {
        let mut sum = Counts::default();
        for (instance, versions) in counted {
            let Some(counts) = versions.get(version) else { continue };
            let mark = row.marks.get(instance).and_then(|versions| versions.get(version));
            sum.add(&mark.map_or_else(|| counts.clone(), |mark| counts.since(mark)));
        }
        sum
    };
    Comparison { candidate: sum(&row.candidate.number), baseline: sum(&row.baseline.number) }
}

/// From where the next step, with this share, counts. The running version is compared over the same time, unless it
/// gets no requests any more: then what it did before has to do.
pub(crate) fn marks(row: &RolloutRow, counted: &Marks, share: Share) -> Marks {
    let mut marks = counted.clone();
    if share == Share::ALL {
        for (instance, versions) in &mut marks {
            versions.remove(&row.baseline.number);
            let before = row.marks.get(instance).and_then(|versions| versions.get(&row.baseline.number));
            versions.extend(before.map(|mark| (row.baseline.number.clone(), mark.clone())));
        }
    }
    marks
}

/// What is to be done at `now`. `refused` says which gateway cannot compile the candidate, and why.
pub(crate) fn decide(
    row: &RolloutRow,
    comparison: &Comparison,
    refused: Option<String>,
    now: i64,
) -> Decision {
    let verdict = row.plan.guard.as_ref().map(|guard| guard.judge(comparison));
    if let (Some(_), Some(refused)) = (&verdict, refused) {
        return Decision::Abort(refused);
    }
    if let Some(Verdict::Worse(reason)) = verdict {
        return Decision::Abort(reason);
    }
    let Some(step) = row.plan.steps.get(row.step) else {
        return Decision::Wait("it has no steps and is ended by hand".to_owned());
    };
    let left = row.step_since.saturating_add(i64::from(step.seconds)).saturating_sub(now);
    if left > 0 {
        return Decision::Wait(format!("{left} s of this step are left"));
    }
    let unknown = match verdict {
        Some(Verdict::Unknown(reason)) => Some(reason),
        _ => None,
    };
    if row.kind == RolloutKind::GuardedPublish {
        let known = unknown.unwrap_or_else(|| "it was not worse than the version before".to_owned());
        return Decision::Promote(format!("its time under watch is over: {known}"));
    }
    // A candidate that nobody has tried goes no further, and is not blamed either.
    if let Some(reason) = unknown {
        return Decision::Wait(reason);
    }
    let next = row.step + 1;
    match row.plan.steps.get(next) {
        Some(step) if step.seconds > 0 || next + 1 < row.plan.steps.len() => Decision::Step(next),
        last => match last.unwrap_or(step).share {
            Share::NONE => Decision::Finish,
            _ => Decision::Promote("its steps are done".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use gatewright_model::rollout::parse_steps;
    use gatewright_model::rollout::verdict::Guard;

    use super::*;
    use crate::store::{NumberedVersion, Plan};

    fn row(kind: RolloutKind, steps: &str, step: usize, guarded: bool) -> RolloutRow {
        let version =
            |number: &str| NumberedVersion { id: number.parse().unwrap(), number: number.to_owned() };
        let steps = if steps.is_empty() { Vec::new() } else { parse_steps(steps).unwrap() };
        RolloutRow {
            id: "ro".to_owned(),
            gateway_group_id: "g".parse().unwrap(),
            service_id: "s".parse().unwrap(),
            kind,
            candidate: version("2"),
            baseline: version("1"),
            share: steps.get(step).map(|step| step.share).unwrap_or_default(),
            plan: Plan { steps, guard: guarded.then(Guard::default), ..Plan::default() },
            step,
            step_since: 1000,
            marks: Marks::new(),
            started_by: "admin".to_owned(),
            started_at: 1000,
            end: None,
            change_number: 1,
        }
    }

    fn counts(requests: u64, failures: u64) -> Counts {
        Counts { requests, failures, latencies: Vec::new() }
    }

    fn decided(row: &RolloutRow, candidate: (u64, u64), now: i64) -> Decision {
        let comparison =
            Comparison { candidate: counts(candidate.0, candidate.1), baseline: counts(1000, 0) };
        decide(row, &comparison, None, now)
    }

    #[test]
    fn a_canary_goes_on_when_its_time_is_over_and_it_was_tried() {
        let canary = |step| row(RolloutKind::Canary, "5% 10m, 25% 30m, 100%", step, true);
        assert!(matches!(decided(&canary(0), (100, 0), 1599), Decision::Wait(_)));
        assert_eq!(decided(&canary(0), (100, 0), 1600), Decision::Step(1));
        assert!(
            matches!(decided(&canary(0), (3, 0), 9999), Decision::Wait(reason) if reason.contains("3 of the 20"))
        );
        assert!(matches!(decided(&canary(1), (100, 0), 1000 + 1800), Decision::Promote(_)));
        let unguarded = row(RolloutKind::Canary, "5% 10m, 100%", 0, false);
        assert!(matches!(decided(&unguarded, (0, 0), 1600), Decision::Promote(_)));
    }

    #[test]
    fn a_canary_that_is_worse_is_aborted_at_once_and_one_that_nobody_tried_never() {
        let canary = row(RolloutKind::Canary, "5% 10m, 100%", 0, true);
        assert!(
            matches!(decided(&canary, (100, 30), 1001), Decision::Abort(reason) if reason.contains("30 of 100"))
        );
        assert!(matches!(decided(&canary, (5, 5), 1001), Decision::Wait(_)));
        let by_hand = row(RolloutKind::Canary, "", 0, true);
        assert!(matches!(decided(&by_hand, (100, 0), 99_999), Decision::Wait(_)));
        assert!(matches!(decided(&by_hand, (100, 30), 1001), Decision::Abort(_)));
        let refused = decide(&canary, &Comparison::default(), Some("i: no".to_owned()), 1001);
        assert_eq!(refused, Decision::Abort("i: no".to_owned()));
    }

    #[test]
    fn steps_that_end_at_nothing_finish_and_a_last_step_may_last() {
        assert_eq!(
            decided(&row(RolloutKind::Canary, "5% 1m, 0%", 0, true), (100, 0), 1060),
            Decision::Finish
        );
        let lasting = row(RolloutKind::Canary, "5% 1m, 100% 1m", 0, true);
        assert_eq!(decided(&lasting, (100, 0), 1060), Decision::Step(1));
        let lasting = RolloutRow { step: 1, ..lasting };
        assert!(matches!(decided(&lasting, (100, 0), 1060), Decision::Promote(_)));
    }

    #[test]
    fn a_guarded_publish_stays_when_its_time_is_over_known_or_not() {
        let guarded = row(RolloutKind::GuardedPublish, "100% 1m", 0, true);
        assert!(matches!(decided(&guarded, (0, 0), 1059), Decision::Wait(_)));
        assert!(matches!(decided(&guarded, (0, 0), 1060), Decision::Promote(_)));
        assert!(
            matches!(decided(&guarded, (40, 40), 1002), Decision::Abort(reason) if reason.contains("40 of 40"))
        );
    }

    #[test]
    fn both_versions_are_compared_over_the_same_time() {
        let mut row = row(RolloutKind::Canary, "5% 1m, 100% 1m", 0, true);
        let of = |candidate: u64, baseline: u64| {
            let versions = [("2".to_owned(), counts(candidate, 0)), ("1".to_owned(), counts(baseline, 0))];
            Marks::from([("i".to_owned(), versions.into())])
        };
        row.marks = of(10, 500);
        let compared = comparison(&row, &of(15, 600));
        assert_eq!((compared.candidate.requests, compared.baseline.requests), (5, 100));
        row.marks = marks(&row, &of(15, 600), Share::ALL);
        let compared = comparison(&row, &of(40, 600));
        assert_eq!(
            (compared.candidate.requests, compared.baseline.requests),
            (25, 100),
            "it gets none any more"
        );
        row.marks = marks(&row, &of(40, 600), Share::of_hundredths(100));
        assert_eq!(comparison(&row, &of(41, 600)).baseline.requests, 0);
    }
}
