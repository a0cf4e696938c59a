// What the experts do for one answer, folded from the events of a consensus stream. Pure.
//
// A chunk's `consensus` is either a step ({event: "plan" | "expert_started" | "expert_text" | "expert_ended" |
// "decided" | "synthesis_started", ...}) or, on the last chunk, the report of the whole.

export function isConsensusModel(model) {
  return model === "consensus" || model.startsWith("consensus/");
}

/** The state after what a chunk says; `state` is null at first. */
export function fold(state, told) {
  const now = state ?? { experts: [] };
  const step = STEPS[told.event];
  if (step) return step(now, told);
  return told.event ? now : report(now, told);
}

const STEPS = {
  plan: (state, { strategy, experts, routing }) => ({
    ...state,
    strategy,
    reason: routing?.reason ?? "",
    experts: experts.map((e) => ({ index: e.index, model: e.model, sample: e.sample, status: "waiting", text: "" })),
  }),
  expert_started: (state, { index, model }) => change(state, index, { model, status: "running" }),
  expert_text: (state, { index, model, text }) => {
    const before = state.experts.find((e) => e.index === index)?.text ?? "";
    return change(state, index, { model, status: "running", text: before + text });
  },
  expert_ended: (state, told) => ({ ...change(state, told.index, ended(told)), votes: told.votes ?? state.votes }),
  decided: (state, { decided_by, agreement, chosen }) => ({ ...state, decidedBy: decided_by, agreement, chosen }),
  synthesis_started: (state, { model }) => ({ ...state, judge: model }),
};

function change(state, index, fields) {
  const isKnown = state.experts.some((e) => e.index === index);
  const experts = isKnown ? state.experts : [...state.experts, { index, text: "", status: "waiting" }];
  return { ...state, experts: experts.map((e) => (e.index === index ? { ...e, ...fields } : e)) };
}

function ended(told) {
  const { model, sample, status, content, extracted, timings, error } = told;
  const fields = { model, sample, status, extracted, timings };
  if (content !== undefined) fields.text = content;
  if (error) fields.error = error.message ?? String(error);
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function report(state, told) {
  let found = state;
  for (const expert of [...(told.experts ?? []), ...(told.failed ?? [])]) {
    const index = expert.index ?? state.experts.find((e) => e.model === expert.model)?.index ?? found.experts.length;
    found = change(found, index, ended(expert));
  }
  const isLive = (e) => e.status === "waiting" || e.status === "running";
  const experts = found.experts.map((e) => (isLive(e) ? { ...e, status: e.error ? "failed" : "cancelled" } : e));
  return {
    ...found,
    experts,
    strategy: told.strategy ?? found.strategy,
    agreement: told.agreement ?? found.agreement,
    decidedBy: told.decided_by ?? found.decidedBy,
    chosen: told.chosen ?? found.chosen,
    judge: told.judge ?? found.judge,
    reason: told.routing?.reason ?? found.reason,
    isEarly: told.early_stopped ?? false,
  };
}
