// Starts the page: finds its parts in the document and connects them.

import { Announcer } from "./announcer.js";
import { Chats } from "./chats.js";
import { Composer } from "./composer.js";
import { title } from "./conversation.js";
import { byId } from "./dom.js";
import { asJson, asMarkdown, download, fileName, fromJson } from "./export.js";
import { explain } from "./help.js";
import { icon } from "./icons.js";
import { Models } from "./models.js";
import { Notice } from "./notice.js";
import { loadKey, loadSettings, saveKey, saveSettings } from "./settings.js";
import { SettingsDialog } from "./settings_dialog.js";
import { Sidebar } from "./sidebar.js";
import { ConversationStore } from "./storage.js";
import { setUpTheme } from "./theme.js";
import { Thread } from "./thread.js";

const announcer = new Announcer(byId("announcements"));
const notice = new Notice(byId("notice"), announcer.say);
const store = new ConversationStore((trouble) => notice.show(trouble));
let settings = loadSettings();
let secret = loadKey();

const models = new Models(byId("model"), byId("model-note"), {
  key: () => secret.key,
  onChange: (model) => {
    if (model && model.id !== settings.model) changeSettings({ model: model.id });
    refreshComposer();
  },
  onError: showConnection,
});

const chats = new Chats(store, () => ({ model: models.current, settings, key: secret.key }), {
  shown: showConversation,
  progress: () => thread.redraw(),
  ended: answerEnded,
});

const thread = new Thread(
  { root: byId("thread"), scroller: byId("scroller"), toEnd: byId("to-end"), empty: byId("empty") },
  {
    edit: (id, text) => whenUsable(() => chats.edit(id, text)),
    again: (id) => whenUsable(() => chats.again(id)),
    choose: (id) => {
      chats.choose(id);
      byId("thread").querySelector(`[data-id="${id}"] .versions button:enabled`)?.focus();
    },
    openSettings,
    announce: announcer.say,
  },
);
thread.generationOf = (id) => chats.generationOf(id);

const composer = new Composer(
  {
    form: byId("composer"), area: byId("message"), send: byId("send"), stop: byId("stop"),
    attach: byId("attach"), file: byId("file"), pictures: byId("pictures"), hint: byId("composer-hint"),
  },
  {
    send: (text, images) => chats.send(text, images),
    stop: stopAnswer,
    trouble: (text) => notice.show(text),
  },
);

const sidebar = new Sidebar(
  {
    root: byId("sidebar"), list: byId("chats"), toggle: byId("menu"), close: byId("close-menu"),
    rest: [byId("main"), byId("header")],
  },
  { open: (id) => chats.open(id), remove: removeConversation },
);

const settingsDialog = new SettingsDialog(
  { dialog: byId("settings"), form: byId("settings-form"), numbers: byId("numbers"), cancel: byId("settings-cancel") },
  (changed, key, isKept) => {
    changeSettings(changed);
    secret = { key, isKept };
    saveKey(key, isKept);
    models.refresh(settings.model);
    notice.show("Settings saved");
  },
);

// ---- what happens

function showConversation() {
  thread.show(chats.current);
  sidebar.draw(store.all(), chats.current?.id);
  byId("export-chat").hidden = !chats.current;
  document.title = chats.current ? `${title(chats.current)} · axion-llm` : "axion-llm";
  refreshComposer();
}

function answerEnded(id, conversation) {
  if (conversation === chats.current) thread.finish(id);
  refreshComposer();
  models.refresh();
}

function refreshComposer() {
  const problem = models.current && !models.isUsable ? "This model is not on this machine: choose another one." : null;
  composer.set({ isBusy: chats.generation !== null, problem, takesImages: models.seesImages });
}

function whenUsable(run) {
  if (models.isUsable) run();
  else notice.show("This model cannot answer now: choose another one at the top");
}

function stopAnswer() {
  chats.generation?.stop();
  byId("message").focus();
}

function showConnection(error) {
  const banner = byId("connection");
  const isNew = banner.hidden;
  banner.hidden = error === null;
  if (error === null) return;
  const { title: what, message, advice, needsKey } = explain(error);
  byId("connection-text").textContent = `${what}. ${needsKey ? message : advice}`;
  byId("connection-settings").hidden = !needsKey;
  if (isNew) announcer.say(`${what}. ${advice}`);
}

function removeConversation(id) {
  const removed = store.get(id);
  chats.remove(id);
  notice.show("Chat deleted", {
    label: "Undo",
    run: () => {
      store.save(removed);
      chats.open(removed.id);
    },
  });
  byId("new-chat").focus();
}

function changeSettings(changed) {
  settings = { ...settings, ...changed };
  saveSettings(settings);
}

function openSettings() {
  settingsDialog.open(settings, secret);
}

async function importChats(file) {
  try {
    const found = fromJson(await file.text());
    found.forEach((conversation) => store.save(conversation));
    showConversation();
    notice.show(`${found.length} chat${found.length === 1 ? "" : "s"} imported`);
  } catch (error) {
    notice.show(error.message);
  }
}

// ---- buttons and keys

for (const button of document.querySelectorAll("[data-icon]")) button.prepend(icon(button.dataset.icon));
for (const button of document.querySelectorAll("[data-try]")) {
  button.addEventListener("click", () => composer.fill(button.textContent));
}
byId("new-chat").addEventListener("click", () => {
  chats.startNew();
  if (sidebar.isOpen) sidebar.setOpen(false);
  byId("message").focus();
});
byId("open-settings").addEventListener("click", openSettings);
byId("connection-settings").addEventListener("click", openSettings);
byId("connection-retry").addEventListener("click", () => models.refresh(settings.model));
byId("export-chat").addEventListener("click", () => {
  download(fileName(title(chats.current), "md"), asMarkdown(chats.current), "text/markdown");
});
byId("export-all").addEventListener("click", () => download("axion-llm-chats.json", asJson(store.all()), "application/json"));
byId("import").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", async ({ target }) => {
  if (target.files[0]) await importChats(target.files[0]);
  target.value = "";
});
document.addEventListener("keydown", (event) => {
  const isElsewhere = event.defaultPrevented || document.querySelector("dialog[open]") || event.target.closest(".edit");
  if (event.key === "Escape" && chats.generation && !isElsewhere) stopAnswer();
});
addEventListener("pagehide", () => chats.leave());
addEventListener("pageshow", () => (chats.isLeaving = false));
addEventListener("storage", (event) => {
  if (store.takeOver(event.key)) sidebar.draw(store.all(), chats.current?.id);
});

setUpTheme(byId("theme"), announcer.say);
showConversation();
models.refresh(settings.model);
byId("message").focus();
