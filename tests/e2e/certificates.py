"""Certificates for one test, made with the openssl command."""
import os
import ssl
import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


class Authority:
    """Signs certificates; each is a pair of files. `path` is what has to be trusted."""

    def __init__(self, folder, name="authority"):
        self.folder = str(folder)
        self.path = os.path.join(self.folder, name + ".pem")
        self.key = os.path.join(self.folder, name + ".key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", self.key, "-out", self.path, "-days", "2", "-subj", f"/CN={name}")

    def sign(self, name, names="DNS:localhost,IP:127.0.0.1", days=2):
        """(certificate, key): files. With days < 0 it has expired."""
        certificate = os.path.join(self.folder, name + ".pem")
        key = os.path.join(self.folder, name + ".key")
        request = os.path.join(self.folder, name + ".csr")
        extensions = os.path.join(self.folder, name + ".ext")
        with open(extensions, "w", encoding="ascii") as file:
            file.write(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                key + ".new", "-out", request, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self.key,
                "-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out",
                certificate + ".new")
        os.replace(key + ".new", key)
        os.replace(certificate + ".new", certificate)
        return certificate, key

    def server_context(self, name, **options):
        """For a server that shows such a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.sign(name, **options))
        return context
