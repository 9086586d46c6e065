# Run the app in a container:
#
#   docker build -t real-vs-ai .
#   docker run --rm -p 127.0.0.1:8501:8501 real-vs-ai
#   docker run --rm -p 127.0.0.1:8501:8501 -v "$PWD/models:/app/models:ro" real-vs-ai
#
# The first command includes models/released in the image; the last one mounts other models instead.
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 10001 app
WORKDIR /app

COPY requirements-app.txt ./
RUN pip install --no-cache-dir -r requirements-app.txt

COPY App.py ./
COPY .streamlit/config.toml .streamlit/config.toml
COPY real_vs_ai real_vs_ai
COPY models models

USER app
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["python", "App.py", "--address", "0.0.0.0"]
