// The page of `lrl label`: shows a question, sends what was chosen, and sends it again until the server has said yes.

const $ = (id) => document.getElementById(id);
const POLL = 3000; // milliseconds between two looks for new questions
const PATIENCE = 15000; // milliseconds that a request may take

const page = {
  state: null, // what the server said last: {store, who, question, last, progress}
  tied: null, // positions chosen as equally best; null outside tie mode
  busy: false, // a judgment is under way
  since: 0, // when the question came into view
  spent: 0, // milliseconds that it was in view before that
  poll: 0,
};

// --- talking to the server -----------------------------------------------------------------------------------------

class Refused extends Error {} // asking again would not help
class Away extends Error {} // asking again may help

async function call(path, body) {
  let answer, data;
  const request = { signal: AbortSignal.timeout(PATIENCE) };
  if (body) {
    const headers = { "Content-Type": "application/json" };
    Object.assign(request, { method: "POST", headers, body: JSON.stringify(body) });
  }
  try {
    answer = await fetch(path, request);
    data = await answer.json();
  } catch {
    throw new Away("The server does not answer.");
  }
  if (answer.ok) return data;
  throw answer.status >= 500 || answer.status === 401 ? new Away(data.error) : new Refused(data.error);
}

async function insist(path, body) {
  for (let tries = 1; ; tries++) {
    try {
      const data = await call(path, body);
      trouble("");
      return data;
    } catch (error) {
      if (error instanceof Refused) throw error;
      const next = body ? "What you did is kept here, and the page sends it again" : "The page asks again";
      trouble(`${error.message} ${next} (attempt ${tries}). Is lrl label running?`);
      await new Promise((done) => setTimeout(done, Math.min(5000, 400 * 1.5 ** tries)));
    }
  }
}

// Judgments that the server has not acknowledged, kept over a reload; each store has its own.
const outbox = {
  name: (judgment) => `lrl-label/${judgment.store}/${judgment.key}`,
  put: (judgment) => attempt(() => localStorage.setItem(outbox.name(judgment), JSON.stringify(judgment))),
  drop: (judgment) => attempt(() => localStorage.removeItem(outbox.name(judgment))),
  all(store) {
    const names = attempt(() => Object.keys(localStorage)) ?? [];
    const mine = names.filter((name) => name.startsWith(`lrl-label/${store}/`));
    return mine.map((name) => JSON.parse(localStorage.getItem(name)));
  },
};

function attempt(act) {
  try {
    return act();
  } catch {
    return undefined; // storage is switched off: the judgment lives as long as the page
  }
}

function freshKey() { // crypto.randomUUID is only there on secure addresses
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- what happens ---------------------------------------------------------------------------------------------------

async function load() {
  clearTimeout(page.poll);
  try {
    const name = attempt(() => sessionStorage.getItem("lrl-label/who")) ?? "";
    show(await insist(`api/question?who=${encodeURIComponent(name)}`));
  } catch (error) {
    trouble(error.message);
  }
}

async function start() {
  await load();
  for (const judgment of page.state ? outbox.all(page.state.store) : []) await deliver(judgment);
}

async function judge(positions) {
  const { question, store, who } = page.state;
  if (page.busy || !question) return;
  const best = positions && positions.map((position) => question.candidates[position].index);
  const ranks = best && question.candidates.map((_, index) => (best.includes(index) ? 0 : 1));
  const judgment = { store, question: question.id, ranks, who, seconds: elapsed(), key: freshKey() };
  const chosen = positions?.map((position) => position + 1).join(", ");
  outbox.put(judgment);
  mark(positions ?? []);
  say(positions ? `Saving answer ${chosen} …` : "Skipping …");
  if (!(await deliver(judgment))) return;
  if (!positions) say("Skipped.");
  else say(positions.length > 1 ? `Saved: ${chosen} are equally best.` : `Saved: answer ${chosen}.`);
}

async function deliver(judgment) {
  let saved = true;
  page.busy = true;
  enable();
  try {
    show(await insist("api/judgment", judgment));
  } catch (error) {
    saved = false;
    say("");
    await load();
    trouble(error.message);
  }
  // Refused, because another store is served at this address now: it waits until its own comes back.
  if (saved || page.state.store === judgment.store) outbox.drop(judgment);
  page.busy = false;
  enable();
  await rename();
  return saved;
}

async function undo() {
  const { who, last } = page.state;
  if (page.busy) return;
  if (last === null) return say("There is nothing to undo.");
  page.busy = true;
  try {
    show(await insist("api/undo", { who, judgment: last }), true);
    say("Taken back: here is the question again.");
  } catch (error) {
    trouble(error.message);
  }
  page.busy = false;
  enable();
}

function tie() {
  if (page.busy || !page.state.question) return;
  page.tied = page.tied ? null : new Set();
  mark([]);
  describe();
}

function choose(position) {
  if (page.busy) return;
  if (!page.tied) return judge([position]);
  if (!page.tied.delete(position)) page.tied.add(position);
  mark([...page.tied]);
  describe();
}

function send() {
  if (page.tied.size) return judge([...page.tied].sort((a, b) => a - b));
  say("Choose at least one answer first.");
}

async function rename() {
  const name = $("who").value.trim();
  if (!name && page.state?.who) $("who").value = page.state.who;
  if (!name || name === page.state?.who || page.busy) return;
  attempt(() => sessionStorage.setItem("lrl-label/who", name));
  if (page.state) page.state.question = null;
  await load();
}

// --- what is shown --------------------------------------------------------------------------------------------------

function show(state, again = false) {
  const before = page.state;
  const same = !again && before?.question?.id === state.question?.id && before?.who === state.who;
  page.state = state;
  if (document.activeElement !== $("who")) $("who").value = state.who;
  $("hello").hidden = state.who !== "";
  $("asking").hidden = !state.question;
  $("done").hidden = !state.who || Boolean(state.question);
  if (!state.who) $("who").focus();
  if (state.question && !same) present(state.question);
  report(state.progress);
  enable();
  clearTimeout(page.poll);
  if (state.who && !state.question) page.poll = setTimeout(poll, POLL);
}

function poll() {
  if (!document.hidden && !page.busy && !page.state.question) load(); // hidden pages look again when they are seen
}

function present(question) {
  const had = document.activeElement?.classList.contains("candidate");
  page.tied = null;
  $("prompt").textContent = question.prompt;
  $("picture").hidden = !question.picture;
  $("asking").classList.toggle("pictured", Boolean(question.picture));
  if (question.picture) $("picture").src = question.picture;
  else $("picture").removeAttribute("src");
  $("candidates").replaceChildren(...question.candidates.map((candidate, position) => card(candidate.text, position)));
  $("asking").classList.remove("fresh");
  void $("asking").offsetWidth; // starts the animation anew
  $("asking").classList.add("fresh");
  if (had) $("candidates").firstChild.focus();
  else window.scrollTo(0, 0);
  describe();
  page.spent = 0;
  page.since = performance.now();
}

function card(text, position) {
  const [button, key, words] = ["button", "span", "span"].map((tag) => document.createElement(tag));
  button.type = "button";
  button.className = "candidate";
  key.className = "key";
  key.textContent = position + 1;
  words.className = text.trim() ? "text" : "text empty";
  words.textContent = text.trim() ? text : "(says nothing)";
  words.dir = "auto";
  button.append(key, words);
  button.addEventListener("click", () => choose(position));
  return button;
}

function describe() {
  const tied = page.tied;
  const keys = `1–${Math.min(9, page.state.question.candidates.length)}`;
  const many = `Choose all of them with ${keys}, then press Enter. t or Esc goes back to one answer.`;
  $("task").textContent = tied ? "Which answers are equally best?" : "Which answer is best?";
  $("hint").textContent = tied ? many : `Press ${keys} or click. Several equally good? Press t.`;
  $("tie").setAttribute("aria-pressed", String(Boolean(tied)));
  $("send").hidden = !tied;
  $("chosen").textContent = tied?.size ? `(${tied.size})` : "";
  for (const [position, button] of [...$("candidates").children].entries()) {
    if (tied) button.setAttribute("aria-pressed", String(tied.has(position)));
    else button.removeAttribute("aria-pressed");
  }
}

function mark(positions) {
  for (const [position, button] of [...$("candidates").children].entries()) {
    button.classList.toggle("chosen", positions.includes(position));
  }
}

function enable() {
  const asking = Boolean(page.state?.question) && !page.busy;
  for (const id of ["tie", "skip", "send"]) $(id).disabled = !asking;
  $("undo").disabled = page.busy || !page.state || page.state.last === null;
  for (const button of $("candidates").children) button.setAttribute("aria-disabled", String(page.busy));
}

function report({ answered, skipped, open, total, seconds, agreement }) {
  const { who } = page.state, shared = agreement.questions;
  const percent = agreement.same === null ? "–" : `${Math.round(100 * agreement.same)} %`;
  const alpha = agreement.alpha === null ? "" : `, Krippendorff's α ${agreement.alpha.toFixed(2).replace("-", "−")}`;
  const several = `${shared} ${shared === 1 ? "question" : "questions"} that several judged`;
  $("bar").max = Math.max(1, total);
  $("bar").value = total - open;
  $("count").textContent = who ? `${answered} judged${skipped ? ` · ${skipped} skipped` : ""} · ${open} open` : "";
  $("agreement").textContent = shared ? `Labellers agree on ${percent} of ${several}${alpha}.` : "";
  $("done-title").textContent = total ? "All done" : "No questions yet";
  const thanks = `Thank you, ${who}: nothing is waiting for you.`;
  $("done-text").textContent = total ? thanks : "Nobody has asked anything so far.";
  const figures = { Judged: answered, Skipped: skipped, Questions: total, Agreement: percent };
  if (seconds !== null) figures["Per answer"] = `${seconds.toFixed(1)} s`;
  $("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => figure(name, value)));
}

function figure(name, value) {
  const [box, term, number] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
  term.textContent = name;
  number.textContent = value;
  box.append(term, number);
  return box;
}

function trouble(text) {
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function say(text) {
  $("said").textContent = text;
}

// --- time, keys and clicks ------------------------------------------------------------------------------------------

function elapsed() { // seconds in which the question was in view
  return Math.round(page.spent + (document.hidden ? 0 : performance.now() - page.since)) / 1000;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) page.spent += performance.now() - page.since;
  else {
    page.since = performance.now();
    if (page.state) poll();
  }
});

function meant(event) { // the key by its place where the layout has no Latin letters
  if (event.key.length > 1) return event.key;
  if (/^[a-z0-9]$/i.test(event.key)) return event.key.toLowerCase();
  return event.code.replace(/^(Key|Digit)/, "").toLowerCase();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target === $("who");
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || typing || !page.state) return;
  const key = meant(event);
  const number = /^[1-9]$/.test(key) ? Number(key) : 0;
  if (number && number <= (page.state.question?.candidates.length ?? 0)) choose(number - 1);
  else if (key === "s") judge(null);
  else if (key === "u") undo();
  else if (key === "t" || (key === "Escape" && page.tied)) tie();
  else if (key === "Enter" && page.tied && !event.target.closest(".actions")) send();
  else return;
  event.preventDefault();
});

$("tie").addEventListener("click", tie);
$("send").addEventListener("click", send);
$("skip").addEventListener("click", () => judge(null));
$("undo").addEventListener("click", undo);
$("who").addEventListener("change", rename);
$("who").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === "Escape") event.target.blur();
});

start();
