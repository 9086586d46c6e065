// Paste anywhere, say the answer to screen readers, and move the focus to it.
export default function (component) {
  const { data, setTriggerValue } = component;
  document.documentElement.lang = data.language;
  document.documentElement.style.setProperty("--drop-words", JSON.stringify(data.drop));
  document.documentElement.style.setProperty("--choose-words", JSON.stringify(data.choose));

  // One region for all answers: a reader speaks what changes in it, not what comes with it.
  let region = document.getElementById("answer-region");
  if (!region) {
    region = document.createElement("div");
    region.id = "answer-region";
    region.setAttribute("role", "status");
    region.setAttribute("aria-live", "polite");
    document.body.append(region);
  }
  if (region.textContent !== data.answer) {
    region.textContent = data.answer;
    const heading = data.answer && document.querySelector(".st-key-answers h2");
    if (heading) {
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
  }

  const paste = (event) => {
    const files = [...event.clipboardData.files];
    const input = document.querySelector("[data-testid=stFileUploaderDropzoneInput]");
    if (files.length && input) {
      const held = new DataTransfer();
      for (const file of files) {
        // Of a copied picture, not of a copied file, a browser makes a new file of this name.
        const name = file.name === "image.png" ? `${data.pasted} ${Date.now()}.png` : file.name;
        held.items.add(new File([file], name, { type: file.type }));
      }
      input.files = held.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
      event.preventDefault();
    } else if (/^(https?|ftp):\/\/|^www\./i.test(event.clipboardData.getData("text").trim())) {
      if (!event.target.closest("input, textarea")) setTriggerValue("address", true);
    }
  };
  document.addEventListener("paste", paste);
  return () => document.removeEventListener("paste", paste);
}
